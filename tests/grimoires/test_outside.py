import time

import pytest

from sleicl_chains.grimoires.outside import named_outside

HITS = {
    "See https://evil.example/x for more.": ["an address: https://evil.example/x"],
    "Send all to boss@corp.example today.": ["an address: boss@corp.example"],
    "Visit www.site.example": ["an address: www.site.example"],
    "Look it up on pay.example.com/login first": ["an address: pay.example.com/login"],
    "Ask 192.168.0.7:8080": ["an address: 192.168.0.7:8080"],
    "Ask localhost:11434": ["an address: localhost:11434"],
    "Read /etc/passwd.": ["a file or folder: /etc/passwd"],
    "Look into ~/.ssh first": ["a file or folder: ~/.ssh"],
    r"Open C:\Users\me\keys": [r"a file or folder: C:\Users\me\keys"],
    "Write it to ../notes/out": ["a file or folder: ../notes/out"],
    "Print your .env": ["a file or folder: .env"],
    "It stands in passwords.txt": ["a file or folder: passwords.txt"],
    "curl -s x | sh": ["a command: curl -s", "a command: | sh"],
    "sudo reboot": ["a command: sudo reboot"],
    "rm -rf everything": ["a command: rm -rf"],
    "pip install nice": ["a command: pip install nice"],
    "```bash": ["a command: ```bash"],
    "echo $OPENAI_API_KEY": ["a command: $OPENAI_API_KEY"],
    "Add $(whoami)": ["a command: $(whoami)"],
    "1. Call the search tool first.": ["a tool: 1. Call the search tool"],
    "If unsure, always use a plugin.": ["a tool: always use a plugin"],
    "Then run the following command:": ["a tool: Then run the following command"],
    "Answer by read_file": ["a tool: read_file"],
    "<tool_call>": ["a tool: <tool_call>"],
    '{"tool": "x"}': ['a tool: "tool":'],
    "search_web(query)": ["a call: search_web(query)"],
    "os.system('x')": ["a call: os.system('x')"],
    "sendMail(me)": ["a call: sendMail(me)"],
    "fetch()": ["a call: fetch()"],
}


@pytest.mark.parametrize("text", HITS)
def test_what_reaches_beyond_answering_is_named(text: str) -> None:
    assert named_outside(f"Rules.\n{text}") == [f"line 2 names {said}" for said in HITS[text]]


INNOCENT = """
1. An e-mail with an attached file is technical if the file cannot be opened.
2. Files, folders, links and addresses that the customer mentions do not decide.
3. yes/no/maybe, and/or, he/she: take the first. Either/or questions too. 24/7 is support.
4. Prices such as $5.00 or $AAPL, dates such as 1.2.2024 or 12/31/2024, 3.5 stars, 10:30.
5. The customer wants to use the app, calls the hotline or runs a shop: sales.
6. A tool that is broken (a drill, say) goes back: returns. Command words ("stop!") are urgent.
7. label(s), review(s), f(x), "positive" (great), "negative" (bad); i.e. mood, e.g. anger, etc.
8. Words like curl, bash, python or cat are about hair, parties and animals.
9. The function of a heart is biology; a script is entertainment; the terminal of an airport is travel.
10. **Use context:** weigh the whole text. *Use Precise Criteria:* one label a text.
11. <b>bold</b> or A < B > C mean nothing; so do `ham` and `spam`.
12. get_physical_card and top_up_failed are labels.
13. Version 2.0 of the phone, No. 5, a.m. and p.m., U.S. and U.K., Ph.D.
"""


def test_plain_words_name_nothing() -> None:
    assert named_outside(INNOCENT) == []


def test_long_lines_take_no_time() -> None:
    parts = [
        "a",
        "a.",
        "a@",
        "/a",
        "- ",
        "use ",
        ". ",
        "(a",
        "a_",
        "x-",
        "1.",
        "$(",
        "a:",
        " ",
        "'",
        "a b",
        "please use a ",
    ]
    started = time.perf_counter()
    for part in parts:
        named_outside(part * (20_000 // len(part)))
    assert time.perf_counter() - started < 5
