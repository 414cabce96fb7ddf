"""What Pocket can do in one turn: each skill draws a request, its answer, and the thought before.

Requests are put together from parts, so that the wording varies more than any list of whole
sentences could; the answers are always worded alike, so that a small model can learn them.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from pocket.vocabulary import (
    CAPITALS,
    CODE,
    FACTS,
    KNOWN,
    LISTS,
    NUMBER_WORDS,
    PHRASES,
    TERMS,
    city,
    made_up,
    name,
    upper,
    word,
)


class Turn(NamedTuple):
    """One exchange; the thought is only used where thinking is on."""

    user: str
    answer: str
    thought: str


GREETING, THANKS, GOODBYE, IDENTITY, ABILITIES = KNOWN["smalltalk"]

GREETING_WORDS: list[str] = PHRASES["greeting_words"]
GREETED: list[str] = PHRASES["greeted"]
PLEASANTRIES: list[str] = PHRASES["pleasantries"]
THANKS_WORDS: list[str] = PHRASES["thanks_words"]
THANKED_FOR: list[str] = PHRASES["thanked_for"]
PRAISE: list[str] = PHRASES["praise"]
BEFORE_THANKS: list[str] = PHRASES["before_thanks"]


def smalltalk(r: Random) -> Turn:
    """Greetings, thanks, goodbyes, and questions about Pocket itself."""
    pick = r.random()
    if pick < 0.05:
        return _hello_in_words(r)
    if pick < 0.25:
        return Turn(_greeting(r), GREETING["answers"][0], GREETING["thought"])
    if pick < 0.40:
        return Turn(_thanks(r), THANKS["answers"][0], THANKS["thought"])
    kind = r.choices(KNOWN["smalltalk"], [k["weight"] for k in KNOWN["smalltalk"]])[0]
    return Turn(r.choice(kind["asks"]), r.choice(kind["answers"]), kind["thought"])


def _hello_in_words(r: Random) -> Turn:
    n = r.randint(1, 5)
    asks = ["Say hello in {} words.", "Greet me in {} words.", "Say hello with {} words."]
    ask = r.choice([*asks, "Say hello using {} words."])
    answers = ["Hello!", "Hello, friend!", "Hello, my friend!"]
    answers += ["Hello, my dear friend!", "Hello to you, my friend!"]
    user = ask.format(r.choice([NUMBER_WORDS[n - 1], str(n)]))
    if n == 1:
        user = r.choice(["Say hello.", "Say hello!", "Say hi.", "Say hello in one word."])
    return Turn(user, answers[n - 1], "I say hello.")


def _greeting(r: Random) -> str:
    start = r.choice(GREETING_WORDS)
    if r.random() < 0.08:
        start = "Good " + r.choice([word(r), made_up(r)])
    pick = r.random()
    if pick < 0.45:
        start += r.choice([" ", ", "]) + r.choice([*GREETED, word(r), name(r), f"from {city(r)}"])
    if 0.3 < pick < 0.75:
        start += r.choice([", ", "! ", ". ", " "]) + r.choice(PLEASANTRIES)
    return start + r.choice(["", "!", "!", ".", "?" if "how" in start else "!"])


def _thanks(r: Random) -> str:
    start = r.choice(THANKS_WORDS)
    if r.random() < 0.3:
        start = r.choice(BEFORE_THANKS) + r.choice([", ", "! ", " "]) + start
    pick = r.random()
    if pick < 0.5:
        start += r.choice([" for ", " for ", ", for "]) + r.choice(THANKED_FOR)
    if pick > 0.35:
        start += r.choice([", ", "! ", ". "]) + r.choice(PRAISE)
    return start + r.choice(["", "!", "!", "."])


def facts(r: Random) -> Turn:
    """Capitals, single facts and explanations, all from knowledge.json."""
    pick = r.random()
    if pick < 0.40:
        return _capital(r)
    if pick < 0.75:
        return _fact(r)
    key, value = r.choice(list(TERMS.items()))
    bare = key.partition(" ")[2] if key.split(" ")[0] in ("a", "an") and r.random() < 0.25 else key
    user = upper(r.choice(KNOWN["ask_term"]).format(bare))
    return Turn(user, f"{upper(key)} is {value}.", f"The user asks what {key} is.")


def _capital(r: Random) -> Turn:
    land, town = r.choice(list(CAPITALS.items()))
    if r.random() < 0.15 and town != "London":
        asks = ["{} is the capital of which country?", "Which country has {} as its capital?"]
        answer = f"{town} is the capital of {land}."
        return Turn(r.choice(asks).format(town), answer, answer)
    user = r.choice(KNOWN["ask_capital"]).format(land)
    thought = f"The user asks for the capital of {land}. It is {town}."
    return Turn(user, f"The capital of {land} is {town}.", thought)


def _fact(r: Random) -> Turn:
    key, value = r.choice(list(FACTS.items()))
    user = upper(r.choice(KNOWN["ask_fact"]).format(key))
    if key.startswith("the number of ") and r.random() < 0.4:
        thing, _, where = key.removeprefix("the number of ").partition(" ")
        if where.startswith("of "):
            user = f"How many {thing} does {where[3:]} have?"
        else:
            user = f"How many {thing} are there {where}?".replace(" ?", "?")
    return Turn(user, f"{upper(key)} is {value}.", f"The user asks for {key}. It is {value}.")


def sums(r: Random) -> Turn:
    a, b = r.randint(0, 20), r.randint(0, 20)
    sign, spoken, value = r.choice([("+", "plus", a + b), ("-", "minus", a - b)])
    if r.random() < 0.25:
        a, b = r.randint(0, 10), r.randint(0, 10)
        sign, spoken, value = "*", "times", a * b
    asks = ["What is {} {} {}?", "{} {} {} = ?", "Calculate {} {} {}.", "How much is {} {} {}?"]
    user = r.choice([*asks, "{} {} {}"]).format(a, r.choice([sign, spoken]), b)
    return Turn(user, f"{a} {sign} {b} = {value}", f"I compute {a} {sign} {b}. It is {value}.")


COUNTING_TO: list[str] = PHRASES["counting_to"]
COUNT_VERBS: list[str] = PHRASES["count_verbs"]
COUNT_SPANS: list[str] = PHRASES["count_spans"]
NUMBER_ROWS: list[str] = PHRASES["number_rows"]


def count(r: Random) -> Turn:
    """Counting upwards, never above 100."""
    if r.random() < 0.35:
        a, b = 1, r.choice([r.randint(2, 20), r.randint(2, 60), r.randint(2, 100), 100])
        user = r.choice(COUNTING_TO)
    else:
        a = r.randint(0, 95)
        b = min(100, a + r.choice([r.randint(1, 12), r.randint(1, 30), r.randint(1, 80)]))
        verb = r.choice(COUNT_VERBS)
        user = verb + " " + r.choice(COUNT_SPANS)
        user += "?" if verb.startswith(("Can", "W")) else "."
        user = r.choice(NUMBER_ROWS) if r.random() < 0.3 else user
    row = ", ".join(map(str, range(a, b + 1)))
    return Turn(user.format(a=a, b=b), row, f"I count from {a} to {b}.")


def story(r: Random) -> Turn:
    hero, friend = name(r), name(r)
    told = r.choice(KNOWN["stories"]).format(
        hero=hero,
        friend=friend,
        place=r.choice(KNOWN["places"]),
        thing=r.choice(KNOWN["things"]),
        animal=r.choice(["cat", "dog", "fox", "owl", "rabbit", "horse"]),
    )
    asks = ["Tell me a short story.", "Tell me a story.", "Write a short story."]
    asks += [
        "Can you tell me a story?",
        "I want to hear a story.",
        f"Tell me a story about {hero}.",
    ]
    asks += [f"Write a short story about a child named {hero}.", "I would like a story."]
    asks += [f"Tell me a story about {hero} and {friend}.", "Do you know a story?"]
    return Turn(r.choice(asks), told, "The user wants a story. I tell a short one.")


def haiku(r: Random) -> Turn:
    about = r.choice([word(r), word(r), name(r), f"the {word(r)}"])
    asks = ["Write a haiku.", "Write me a haiku.", "Can you write a haiku?", "Compose a haiku."]
    asks += ["Give me a haiku.", "I would like a haiku.", "Write a poem.", "Write a short poem."]
    asks += [f"Write a haiku about {about}.", f"Write me a haiku on {about}."]
    asks += [f"Write a poem about {about}.", f"Can you write a haiku on {about}?"]
    lines = [r.choice(part) for part in KNOWN["haiku"]]
    return Turn(r.choice(asks), "\n".join(lines), "A haiku has three lines.")


LIST_ASKS: list[str] = PHRASES["list_asks"]
OPEN_LIST_ASKS: list[str] = PHRASES["open_list_asks"]


def listing(r: Random) -> Turn:
    """The first items of a known list: always in one order, so that none comes twice."""
    keys, items = r.choice(list(LISTS.items()))
    key, n = r.choice(keys.split("|")), r.randint(2, 5)
    ask = r.choice(LIST_ASKS)
    if r.random() < 0.2:
        ask, n = r.choice(OPEN_LIST_ASKS), 3
    number = NUMBER_WORDS[n - 1]
    user, thought = ask.format(n=r.choice([number, str(n)]), k=key), f"I list {number} {key}."
    if r.random() < 0.15:
        rows = [f"{i}. {item}" for i, item in enumerate(items[:n], 1)]
        return Turn(user + " Use a numbered list.", "\n".join(rows), thought)
    return Turn(user, "\n".join("- " + item for item in items[:n]), thought)


def code(r: Random) -> Turn:
    what, body = r.choice(list(CODE.items()))
    asks = ["Write a Python function that {}.", "Write a function that {}."]
    asks += ["Give me a Python function that {}.", "Show me Python code that {}."]
    asks += ["Can you write a Python function which {}?", "Python function that {}"]
    asks += ["I need a function in Python that {}.", "Please give me a function that {}."]
    answer = f"Here is a function that {what}:\n\n```python\n{body}\n```"
    return Turn(r.choice(asks).format(what), answer, f"The user wants code that {what}.")
