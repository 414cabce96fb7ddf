"""`python standalone_test.py [--model NAME] [--interactive]`: try a model without a service."""

from service.cli.trying import standalone_test

if __name__ == "__main__":
    standalone_test()
