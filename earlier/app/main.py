"""`uvicorn app.main:app`, or `python app/main.py`: the LLM serving API, by Parley."""

from service.cli.earlier import serving_api as __getattr__  # uvicorn asks for `app`

if __name__ == "__main__":
    __getattr__("app")
