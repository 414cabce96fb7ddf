"""`uvicorn api:app`, or `python api.py`: the multi-API server, by Parley."""

from service.cli.earlier import api as __getattr__  # uvicorn asks for `app`

if __name__ == "__main__":
    __getattr__("app")
