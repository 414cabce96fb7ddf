"""`uvicorn api_chatbot:app`, or `python api_chatbot.py`: the local chatbot API, by Parley."""

from service.cli.earlier import api_chatbot as __getattr__  # uvicorn asks for `app`

if __name__ == "__main__":
    __getattr__("app")
