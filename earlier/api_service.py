"""`python api_service.py [MODEL]`: the LLaMA chat API on port 8002, by Parley."""

from service.cli.earlier import api_service as __getattr__  # uvicorn asks for `app`

if __name__ == "__main__":
    __getattr__("app")
