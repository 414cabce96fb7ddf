"""`uvicorn web_chatbot:app`, or `python web_chatbot.py`: the local chatbot's page, by Parley."""

from service.cli.earlier import web_chatbot as __getattr__  # uvicorn asks for `app`

if __name__ == "__main__":
    __getattr__("app")
