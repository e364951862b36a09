"""Checks objects against structural schemas with jsonschema-rs, and says what is wrong in Kubernetes' words. Pure.

The library is chosen in docs/adr/0007-json-schema-library.md. Sources of the words: kube-openapi pkg/validation/errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tiphys_apimachinery.errors import FieldError
from tiphys_apimachinery.field_error import FieldErrorType
from tiphys_apimachinery.text_formats import FORMATS

JSON = dict[str, Any]
_KEPT: Final = (
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "maxProperties",
    "minProperties",
    "required",
    "format",
)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_EMBEDDED: Final[JSON] = {
    "required": ["apiVersion", "kind"],
    "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}},
}
# A line of an object that breaks everywhere would help nobody.
_MAX_ERRORS: Final = 100


class BadPattern(ValueError):
    """The schema has a regular expression that can't be compiled."""


def compile_schema(schema: Mapping[str, Any]) -> Any:
    """What checks objects against a schema in its JSON form. Regular expressions take time linear in their input.

    Raises BadPattern.
    """
    # Its 5 MB are of no use to a server without custom resources.
    import jsonschema_rs

    try:
        return jsonschema_rs.Draft202012Validator(
            translate(schema),
            formats=dict(FORMATS),
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
    except jsonschema_rs.ValidationError as err:
        raise BadPattern(err.message) from err


def translate(schema: Mapping[str, Any]) -> JSON:
    """The schema in the words of JSON Schema 2020-12."""
    found: JSON = {name: value for name, value in schema.items() if name in _KEPT}
    nullable = bool(schema.get("nullable"))
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    elif schema.get("type"):
        found["type"] = [schema["type"]]
    if nullable and "type" in found:
        found["type"].append("null")
    if "enum" in schema:
        found["enum"] = [*schema["enum"], None] if nullable and None not in schema["enum"] else schema["enum"]
    for bound in ("minimum", "maximum"):
        if bound in schema:
            exclusive = f"exclusive{bound.capitalize()}"
            found[exclusive if schema.get(exclusive) else bound] = schema[bound]
    if schema.get("properties"):
        found["properties"] = {name: translate(part) for name, part in schema["properties"].items()}
    for name in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(name), Mapping):
            found[name] = translate(schema[name])
    for name in ("allOf", "anyOf", "oneOf"):
        if schema.get(name):
            found[name] = [translate(part) for part in schema[name]]
    if schema.get("x-kubernetes-embedded-resource"):
        found["allOf"] = [*found.get("allOf", ()), _EMBEDDED]
    return found


def check(validator: Any, document: Any) -> list[FieldError]:
    """Every fault of a document, in Kubernetes' words."""
    errors: list[FieldError] = []
    for found in validator.iter_errors(document):
        errors.append(_fault(found))
        if len(errors) >= _MAX_ERRORS:
            break
    return errors


def path_text(steps: Sequence[str | int]) -> str:
    """A path as Kubernetes writes it: spec.items[0].name, with names that are no words in brackets."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_NAME.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{step}]" if text else step
    return text


def _fault(found: Any) -> FieldError:
    path, value = path_text(list(found.instance_path)), found.instance
    facts = found.kind.as_dict()
    name = found.kind.name
    if name == "required":
        return FieldError.required(f"{path}.{facts['property']}" if path else facts["property"])
    if name == "enum":
        return FieldError.not_supported(path, value, [_word(option) for option in facts["options"]])
    if name == "type":
        wanted = [word for word in facts["types"] if word != "null"]
        body = f"{path} in body must be of type {','.join(wanted)}: {_quoted(_type_of(value))}"
        return FieldError.type_invalid(path, _shown(_type_of(value) if not _is_scalar(value) else value), body)
    if name == "maxItems":
        return FieldError.too_many(path, len(value), facts["limit"])
    if name == "maxLength":
        return FieldError(path, FieldErrorType.TOO_LONG, "", f"may not be more than {facts['limit']} bytes")
    if name == "maxProperties":
        return FieldError.too_many(path, len(value), facts["limit"])
    words = _WORDS.get(name)
    told = words(facts) if words is not None else found.message
    if name in ("oneOf", "anyOf", "not", "allOf"):
        return FieldError.invalid(path, _shown(value), f"{_quoted(path)} {told}")
    return FieldError.invalid(path, _shown(value), f"{path} in body {told}")


_WORDS: Final[Mapping[str, Callable[[JSON], str]]] = {
    "minimum": lambda facts: f"should be greater than or equal to {_number(facts['limit'])}",
    "exclusiveMinimum": lambda facts: f"should be greater than {_number(facts['limit'])}",
    "maximum": lambda facts: f"should be less than or equal to {_number(facts['limit'])}",
    "exclusiveMaximum": lambda facts: f"should be less than {_number(facts['limit'])}",
    "minLength": lambda facts: f"should be at least {facts['limit']} chars long",
    "minItems": lambda facts: f"should have at least {facts['limit']} items",
    "minProperties": lambda facts: f"should have at least {facts['limit']} properties",
    "multipleOf": lambda facts: f"should be a multiple of {_number(facts['multiple_of'])}",
    "pattern": lambda facts: f"should match '{facts['pattern']}'",
    "format": lambda facts: f"must be of type {facts['format']}",
    "uniqueItems": lambda _facts: "shouldn't contain duplicates",
    "oneOf": lambda _facts: "must validate one and only one schema (oneOf)",
    "anyOf": lambda _facts: "must validate at least one schema (anyOf)",
    "allOf": lambda _facts: "must validate all the schemas (allOf)",
    "not": lambda _facts: "must not validate the schema (not)",
}


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (dict, list)) and value is not None


def _shown(value: Any) -> Any:
    """The value as a message repeats it: of a large one its kind."""
    return _type_of(value) if isinstance(value, (dict, list)) or value is None else value


def _type_of(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "array" if isinstance(value, list) else "null"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _word(option: Any) -> str:
    return option if isinstance(option, str) else "null" if option is None else str(option)


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
