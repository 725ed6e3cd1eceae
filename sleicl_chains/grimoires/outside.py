"""What in a text from somebody else reaches beyond answering: addresses, files, commands and tools that it names.

A guide tells how to answer. One that names an address or a tool may be meant for an agent that can use them, so a
person is shown those lines first. Plain words ("the file is missing", "two e-mails") name nothing. This finds what is
written openly, and is no protection against a text that hides it.
"""

import re

_NETWORK = r"com|org|net|edu|gov|io|ai|dev|app|co|me|info|biz|xyz|ru|cn|de|uk|eu|fr|onion|site|online|cloud|sh"
_FILE = (
    r"py|sh|bash|exe|bat|cmd|ps1|js|ts|json|jsonl|ya?ml|toml|md|txt|csv|tsv|pdf|docx?|xlsx?|pptx?|zip|tar|gz|env|ini|cfg|"
    r"conf|log|sqlite|db|pem|key|crt|html?|xml|gguf|bin|so|dll|ipynb"
)
_PROGRAM = (
    r"curl|wget|ssh|scp|rsync|nc|ncat|telnet|chmod|chown|mkdir|cat|cp|mv|tar|python3?|node|npx|bash|zsh|sh|perl|ruby|"
    r"powershell|pwsh|cmd|osascript|xargs|crontab|systemctl|kubectl|aws|gcloud|az|ollama|sqlite3|psql|mysql"
)
_INSTALLER = r"pip3?|pipx|uvx?|npm|yarn|pnpm|brew|apt(?:-get)?|dnf|yum|gem|cargo|go|docker|git|conda"
_KNOWN_TOOL = (
    r"(?:read|write|edit|delete|list|open|send|fetch|create)_(?:files?|urls?|e?mails?|messages?|pages?|director(?:y|ies))|"
    r"(?:web|google|bing|file)_search|(?:run|execute)_(?:code|commands?|shell|python|bash|sql)|code_interpreter|"
    r"python_repl|tool_calls?|function_calls?"
)
_ORDER = r"(?:^[\W\d_]*|[.;:!?]\s+|\b(?:must|should|always|then|please|first|now|you can|you may)\s+)"
"""Where an order begins: at the start of a line or sentence, or after a word that makes one."""

_KINDS = {
    "an address": re.compile(
        rf"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{{0,20}}://[^\s)>\]]+|\b(?:mailto|javascript):\S+|\bdata:\w+/\S+|\bwww\.\S+|"
        rf"(?<![\w.+-])[\w.+-]{{1,64}}@[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{1,8}}|"
        rf"(?<![\w.-])(?:[a-z0-9-]{{1,63}}\.){{1,8}}(?:{_NETWORK})(?:[/:?#]\S*|\b(?![\w.]))|"
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])(?::\d+)?|"
        r"\blocalhost(?::\d+)?\b",
        re.IGNORECASE,
    ),
    "a file or folder": re.compile(
        rf"(?<![\w/<])(?:~|\.{{1,2}})?/[\w.@-]+/[\w./@-]+|(?<!\w)(?:~|\.\.)/[\w./-]*|\b[A-Za-z]:\\\S+|\\\\\w+\\\S+|"
        rf"(?<!\w)\.(?:env|ssh|aws|git|bashrc|profile|netrc|npmrc)\b|(?<![\w-])[\w-]{{1,100}}\.(?:{_FILE})\b(?!\.\w)",
        re.IGNORECASE,
    ),
    "a command": re.compile(
        rf"(?<![\w'-])(?:{_PROGRAM})\s+(?:-{{1,2}}\w\S*|[~.]?/\S+|\"?\$\w+|\S+://\S+)|\bsudo\s+\w+|\brm\s+-\w+|"
        rf"\b(?:{_INSTALLER})\s+(?:install|add|run|clone|exec|push|pull)\s+\S+|\|\s*(?:ba|z)?sh\b|\$\([^)\n]{{1,200}}\)|"
        r"\$\{\w+\}|\$(?:HOME|PATH|USER|PWD|[A-Z0-9]+_[A-Z0-9_]+)\b|^\s*```\s*(?:ba|z)?sh\b|^\s*```\s*(?:shell|console|"
        r"powershell|python|py|javascript|js)\b|^\s*\$ \w+",
        re.IGNORECASE,
    ),
    "a tool": re.compile(
        rf"{_ORDER}(?:call|use|invoke|run|execute)\b[^.\n]{{0,40}}?\b"
        r"(?:tools?|functions?|commands?|scripts?|plugins?|shell|terminal|interpreter|apis?|mcp)\b|"
        rf"\b(?:{_KNOWN_TOOL})\b|</?(?:\w+:)?(?:tool|function|invoke)\w*[\s>=]|\ballowed-tools\b|"
        r"[\"'](?:tool|tool_name|tool_calls|function|function_call|arguments|parameters)[\"']\s*:",
        re.IGNORECASE,
    ),
    "a call": re.compile(
        r"\b(?=[A-Za-z]\w*_)\w+\([^)\n]{0,200}\)|\b[a-z]+[A-Z]\w*\([^)\n]{0,200}\)|\b[A-Za-z_]\w*\.[A-Za-z_]\w*\([^)\n]{0,200}\)|"
        r"\b[A-Za-z_]\w{2,}\((?:\)|[\"'{\[]|\w+\s*=)"
    ),
}


def named_outside(text: str) -> list[str]:
    """Return a line for each address, file, command, tool and call that a text names, as "line 3 names a tool: ..."."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        for kind, pattern in _KINDS.items():
            found += [f"line {number} names {kind}: {said:.120}" for said in _distinct(pattern, line)]
    return found


def _distinct(pattern: re.Pattern[str], line: str) -> list[str]:
    return list(dict.fromkeys(" ".join(match[0].split()).rstrip(" .,;") for match in pattern.finditer(line)))
