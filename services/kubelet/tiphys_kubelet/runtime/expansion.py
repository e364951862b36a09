"""$(VAR) in commands, arguments and environment values.

Source: the documented rules. A reference to an unknown variable stays as it is; $$ stands for one $, so $$(VAR) is
never expanded.
"""

from __future__ import annotations

from collections.abc import Mapping


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with every known $(NAME) replaced, once; what is put in is not looked at again."""
    if "$" not in text:
        return text
    parts: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0 and dollar + 1 < len(text):
        parts.append(text[at:dollar])
        after = text[dollar + 1]
        close = text.find(")", dollar + 2) if after == "(" else -1
        if after == "$":
            parts.append("$")
            at = dollar + 2
        elif close >= 0:
            name = text[dollar + 2 : close]
            parts.append(variables.get(name, text[dollar : close + 1]))
            at = close + 1
        else:
            # Neither form: Kubernetes keeps the dollar and the character behind it.
            parts.append(text[dollar : dollar + 2])
            at = dollar + 2
    parts.append(text[at:])
    return "".join(parts)
