"""`python chat_cli.py`: the terminal chat of the LLM serving API, by Parley."""

from service.cli.earlier import chat_cli

if __name__ == "__main__":
    chat_cli()
