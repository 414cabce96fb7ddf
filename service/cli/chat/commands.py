"""What can be typed besides messages: lines that begin with a slash."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service.cli.chat.client import Refused
from service.cli.chat.screen import Screen, footer, stoppable
from service.cli.chat.session import Session

_POLL_SECONDS = 0.5
_SHORT_ID = 14  # as much of an id as /load needs, next to always


class Leave(Exception):
    """The person wants to go."""


class Commands:
    """Obeys lines that begin with a slash. Raises `Refused`, and `Leave` for /quit."""

    def __init__(self, session: Session, screen: Screen) -> None:
        self.session = session
        self.screen = screen
        self.by_name: Mapping[str, Callable[[str], None]] = {
            "/help": self._help,
            "/models": self._models,
            "/switch": self._switch,
            "/new": self._new,
            "/list": self._list,
            "/save": self._save,
            "/load": self._load,
            "/system": self._system,
            "/set": self._set,
            "/regenerate": self._regenerate,
            "/continue": self._continue,
            "/stop": self._stop,
            "/quit": self._quit,
            "/exit": self._quit,
        }

    def obey(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        command = self.by_name.get(name.lower())
        if command is None:
            raise Refused(f"{name} is no command; /help lists them.")
        command(rest.strip())

    def _help(self, _: str) -> None:
        for usage, meaning in _HELP:
            self.screen.say(f"  {usage:<22} {meaning}")

    def _models(self, _: str) -> None:
        known = self.session.client.get("/api/v1/chat/models")["models"]
        rows = [(m["name"], m["status"], m["description"]) for m in known]
        self.screen.table(("Model", "Status", "Description"), rows)

    def _switch(self, name: str) -> None:
        if not name:
            raise Refused("Say which model: /switch NAME; /models lists them.")
        self.screen.say(f"Switching to {name} …")
        switch = self.session.client.post("/v1/models/switch", {"model": name})["switch"]
        told = ""
        while switch["phase"] not in ("done", "failed"):
            said = f"{switch['phase']} {switch['progress']:.0%}"
            if said != told:
                self.screen.say(f"  {said}")
                told = said
            time.sleep(_POLL_SECONDS)
            switch = self.session.client.get("/v1/models/state")["switch"]
        if switch["phase"] == "failed":
            raise Refused(switch["reason"])
        self.session.refresh()
        self.screen.say(f"{self.session.model} answers now.")

    def _new(self, _: str) -> None:
        self.session.conversation_id = None
        self.screen.say("A new conversation.")

    def _list(self, _: str) -> None:
        known = self.session.client.get("/v1/conversations", limit="20")["data"]
        if not known:
            self.screen.say("There is no conversation yet.")
            return
        rows = [
            (
                "*" if c["id"] == self.session.conversation_id else "",
                c["id"][:_SHORT_ID],
                time.strftime("%Y-%m-%d %H:%M", time.localtime(c["updated_at"])),
                str(c["num_turns"]),
                c["title"],
            )
            for c in known
        ]
        self.screen.table(("", "Conversation", "Used", "Turns", "Title"), rows)

    def _save(self, name: str) -> None:
        if not name:
            raise Refused("Say under which name: /save NAME.")
        path = Path(name if name.endswith(".json") else f"{name}.json").expanduser()
        num = self.session.save(path)
        self.screen.say(f"Conversation saved to {path} ({counted(num, 'message')}).")

    def _load(self, name: str) -> None:
        if not name:
            raise Refused("Say what: /load NAME, a file that was saved or a conversation's id.")
        path = Path(name if name.endswith(".json") else f"{name}.json").expanduser()
        found = self.session.load(path) if path.is_file() else self.session.open(name)
        self.screen.say(
            f"Going on with {found['title'] or found['id']} "
            f"({counted(found['num_turns'], 'turn')})."
        )

    def _system(self, prompt: str) -> None:
        self.session.system_prompt = prompt or None
        self.screen.say("The system prompt is set." if prompt else "The service's system prompt.")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if not value:
            options = ", ".join(f"{n} {v}" for n, v in self.session.options.items())
            self.screen.say(options or "Everything is as the service has it.")
            return
        self.session.set(name, value.strip())
        self.screen.say(f"{name} is {value.strip()}.")

    def _regenerate(self, _: str) -> None:
        self.screen.answer(stoppable(self.session.regenerate()))
        self.screen.say(footer(self.session))

    def _continue(self, _: str) -> None:
        self.screen.answer(stoppable(self.session.go_on()))
        self.screen.say(footer(self.session))

    def _stop(self, _: str) -> None:
        if self.session.conversation_id is None:
            raise Refused("Nothing is being written.")
        path = f"/v1/conversations/{self.session.conversation_id}/stop"
        num = self.session.client.post(path)["stopped"]
        self.screen.say(
            f"{counted(num, 'answer')} stopped." if num else "Nothing is being written."
        )

    def _quit(self, _: str) -> None:
        raise Leave


def counted(num: int, noun: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{num} {noun}" if num == 1 else f"{num} {noun}s"


_HELP = (
    ("/models", "the models, and which one is loaded"),
    ("/switch NAME", "let another model answer"),
    ("/new", "start a new conversation"),
    ("/list", "your conversations, from all devices"),
    ("/save NAME", "write this conversation to NAME.json"),
    ("/load NAME", "go on with NAME.json, or with a conversation of the list"),
    ("/system TEXT", "set the system prompt; without TEXT, the service's"),
    ("/set NAME VALUE", "temperature, top_p or max_tokens; VALUE may be default"),
    ("/regenerate", "answer the last message again"),
    ("/continue", "go on with the last answer, where it was cut"),
    ("/stop", "stop an answer that another device waits for; Ctrl-C stops the one here"),
    ("/help", "this list"),
    ("/quit", "leave, as Ctrl-D does"),
)
