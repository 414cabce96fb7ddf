"""`python client_test.py [--interactive]`: ask a running service what its clients ask."""

from service.cli.trying import client_test

if __name__ == "__main__":
    client_test()
