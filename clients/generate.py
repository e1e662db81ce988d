#!/usr/bin/env python3
"""Writes the clients' operations from what a master says of itself (`GET /openapi.json`).

    clients/generate.py target/debug/mesophyll            writes both files
    clients/generate.py --check target/debug/mesophyll    fails if they are not what it would write

An operation becomes a method of its name. A body that is an object becomes arguments; one that may
be several objects, told apart by `op`, becomes a method for each. What is not JSON is left out.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

CLIENTS = Path(__file__).resolve().parent
# A guild is a tenant: the route for any tenant does the same.
LEFT_OUT = ("openapi", "dispatchToGuild")
# TypeScript has a Record of its own.
NAMES = {"Record": "KvRecord"}
OF_VALUES = ("Json", "Value")
PYTHON = {"string": "str", "integer": "int", "boolean": "bool", "array": "list", "object": "dict"}


def description(mesophyll):
    """The description that a master of this program serves."""
    arguments = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--store", "memory:"]
    environment = {**os.environ, "MESOPHYLL_API_SECRET": "a secret of this run only, of 32 bytes"}
    master = subprocess.Popen(
        [mesophyll, "master", "--workers", "1", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        address = json.loads(master.stdout.readline())["api"]
        with urllib.request.urlopen(f"http://{address}/openapi.json", timeout=30) as answer:
            return json.load(answer)
    finally:
        master.terminate()
        master.wait(timeout=60)


def json_of(content):
    """The schema of a body or an answer; None if there is none, False if it is not JSON."""
    media = content.get("content")
    if not media:
        return None
    return media["application/json"].get("schema", {}) if "application/json" in media else False


class Method:
    """What becomes a method: an operation, or one of the bodies that an operation may have."""

    def __init__(self, whole, path, verb, operation, body, answer, name, op=None):
        self.path, self.verb, self.name, self.answer = path, verb.upper(), name, answer
        said = body["description"] if op else operation["summary"]
        self.summary = said.split("[")[0].strip()
        self.op, self.body = op, body
        parameters = operation["parameters"]
        # A tenant is one argument, as it is written everywhere: guild:123.
        in_path = [one["name"] for one in parameters if one["in"] == "path"]
        self.in_path = [
            "tenant" if one == "tenant_id" else one for one in in_path if one != "tenant_type"
        ]
        self.query = [(one["name"], one["schema"]) for one in parameters if one["in"] == "query"]
        self.required, self.optional = [], []
        if body and "properties" in body:
            for member, schema in body["properties"].items():
                known = member in body.get("required", [])
                if member != "op" or not op:
                    (self.required if known else self.optional).append((member, schema))
            # As the description lists them: the most important first.
            self.required.sort(key=lambda one: body["required"].index(one[0]))
        self.whole = whole

    def is_value(self, schema):
        return schema.get("$ref", "").endswith("/Value")

    def answers_values(self):
        return '/Value"' in json.dumps(self.answer) or any(
            f'/{name}"' in json.dumps(self.answer) for name in ("Record",)
        )


def methods(whole):
    def resolved(schema):
        reference = (schema or {}).get("$ref")
        return whole["components"]["schemas"][reference.split("/")[-1]] if reference else schema

    for path, operations in whole["paths"].items():
        for verb, operation in operations.items():
            answers = [
                json_of(answer)
                for status, answer in operation["responses"].items()
                if status[0] in "12"
            ]
            body = json_of(operation.get("requestBody", {}))
            name = operation["operationId"]
            if (
                name in LEFT_OUT
                or False in answers
                or body is False
                or "101" in operation["responses"]
            ):
                continue
            answer = next((one for one in answers if one), None)
            made = (whole, path, verb, operation)
            if not body or "oneOf" not in body:
                yield Method(*made, resolved(body), answer, name)
                continue
            for one in map(resolved, body["oneOf"]):
                op = one["properties"]["op"]
                for word in op.get("enum", [op.get("const")]):
                    said = one.get("x-answer", {}).get(word)
                    yield Method(*made, one, said, name + word.title().replace("_", ""), word)


# --- Python ---------------------------------------------------------------------------------------


def snake(name):
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def python_type(whole, schema):
    if "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].split("/")[-1]]
    kind = "string" if "enum" in schema else schema.get("type")
    kind = next((one for one in kind if one != "null"), None) if isinstance(kind, list) else kind
    return PYTHON.get(kind, "Any")


def wrapped(text, width):
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def call(head, arguments, indent, end="", step="    "):
    """A call, or what looks like one, on a line if it fits; an argument may be a list: its begin,
    its items and its end."""
    flat = [
        one if isinstance(one, str) else one[0] + one[1] + ", ".join(one[2]) + one[3]
        for one in arguments
    ]
    line = f"{indent}{head}({', '.join(flat)}){end}\n"
    if len(line) <= 101:
        return line
    lines = []
    for one, text in zip(arguments, flat):
        if len(indent) + len(text) <= 95:
            lines.append(f"{indent}{step}{text},\n")
        else:
            lines.append(f"{indent}{step}{one[0]}{one[1].rstrip()}\n")
            lines += [f"{indent}{step}{step}{item},\n" for item in one[2]]
            lines.append(f"{indent}{step}{one[3].lstrip()},\n")
    return f"{indent}{head}(\n{''.join(lines)}{indent}){end}\n"


def python_method(method):
    whole = method.whole
    parameters = [f"{name}: {'int' if name == 'id' else 'str'}" for name in method.in_path]
    parameters += [f"{name}: {python_type(whole, schema)}" for name, schema in method.required]
    if method.body and "properties" not in method.body:
        parameters.append(f"body: {python_type(whole, method.body)}")
    optional = [name for name, _ in method.optional + method.query]
    # The data of an event is what one says most often, and never by its name.
    parameters += ["data: Any = None"] * ("data" in optional)
    named = [f"{name}=None" for name in optional if name != "data"]
    parameters += ["*", *named] if named else []
    path = method.path.replace("{tenant_type}/{tenant_id}", "{path_of(tenant)}")
    path = re.sub(r"\{(id|name)\}", r"{quote(str(\1))}", path)
    arguments = [f'"{method.verb}"', f'{"f" if "{" in path else ""}"{path}"']
    if method.query:
        pairs = ", ".join(f'"{name}": {name}' for name, _ in method.query)
        arguments.append(f"query={{{pairs}}}")
    if method.body and "properties" not in method.body:
        arguments.append("body=body")
    elif method.body:
        pairs = [f'"op": "{method.op}"'] if method.op else []
        for name, schema in method.required:
            pairs.append(f'"{name}": ' + (f"encode({name})" if method.is_value(schema) else name))
        given = [f"{name}={name}" for name, _ in method.optional]
        pairs += [f"**given({', '.join(given)})"] if given else []
        arguments.append(["body=", "{", pairs, "}"])
    if method.answer and method.answers_values():
        arguments.append("has_values=True")
    summary = wrapped(method.summary, 88)
    text = "\n        ".join(summary)
    text += '"""\n' if len(summary) == 1 else '\n        """\n'
    head = call(f"def {snake(method.name)}", ["self", *parameters], "    ", " -> Any:")
    return head + f'        """{text}' + call("return self._call", arguments, "        ")


PYTHON_HEAD = '''"""The operations of the internal API. Written by clients/generate.py."""

from typing import Any
from urllib.parse import quote

from .values import encode, given, path_of


class Operations:
    """A method for each operation; docs/api.md says more of each. Of an asynchronous client each
    answer is to be awaited."""

    def _call(self, method, path, *, query=None, body=None, has_values=False) -> Any:
        raise NotImplementedError

'''


# --- TypeScript -----------------------------------------------------------------------------------


def typescript_type(schema, used):
    if schema is None:
        return "void"
    if not isinstance(schema, dict) or "const" in schema:
        return json.dumps(schema["const"] if isinstance(schema, dict) else schema)
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        target = used["schemas"][name]
        if name in OF_VALUES:
            used["values"].add(name)
        elif "properties" in target or "allOf" in target:
            used["names"].add(name)
        else:
            return typescript_type(target, used)
        return NAMES.get(name, name)
    for key, between in (("oneOf", " | "), ("anyOf", " | "), ("allOf", " & "), ("enum", " | ")):
        if key in schema:
            return between.join(typescript_type(one, used) for one in schema[key])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(typescript_type({**schema, "type": one}, used) for one in kind)
    if kind == "array":
        item = typescript_type(schema["items"], used)
        return f"({item})[]" if " " in item else f"{item}[]"
    if "properties" in schema:
        required = schema.get("required", [])
        members = [
            f"{name}{'' if name in required else '?'}: {typescript_type(one, used)}"
            for name, one in schema["properties"].items()
        ]
        return "{ " + "; ".join(members) + " }"
    if kind == "object":
        item = schema.get("additionalProperties")
        return f"{{ [name: string]: {typescript_type(item, used) if item else 'unknown'} }}"
    return {"integer": "number", "string": "string", "boolean": "boolean", "null": "null"}.get(
        kind, "unknown"
    )


def typescript_interface(name, schema, used):
    if "allOf" in schema:
        return f"export type {NAMES.get(name, name)} = {typescript_type(schema, used)};\n"
    lines = []
    for member, one in schema["properties"].items():
        if "description" in one:
            lines.append(f"  /** {one['description'].split('[')[0].strip()} */\n")
        mark = "" if member in schema.get("required", []) else "?"
        lines.append(f"  {member}{mark}: {typescript_type(one, used)};\n")
    return f"export interface {NAMES.get(name, name)} {{\n{''.join(lines)}}}\n"


def typescript_method(method, used):
    parameters = [f"{name}: {'number' if name == 'id' else 'string'}" for name in method.in_path]
    parameters += [f"{name}: {typescript_type(schema, used)}" for name, schema in method.required]
    if method.body and "properties" not in method.body:
        parameters.append(f"body: {typescript_type(method.body, used)}")
    optional = dict(method.optional + method.query)
    has_data = "data" in optional
    parameters += [f"data?: {typescript_type(optional.pop('data'), used)}"] if has_data else []
    # A flag is written true or false.
    kind = lambda schema: (
        "boolean" if "true" in schema.get("enum", []) else typescript_type(schema, used)
    )
    if optional:
        members = [f"{name}?: {kind(schema)}" for name, schema in optional.items()]
        parameters.append(["more: ", "{ ", members, " } = {}"])
    path = method.path.replace("{tenant_type}/{tenant_id}", "${pathOf(tenant)}")
    path = re.sub(r"\{(id|name)\}", r"${encodeURIComponent(\1)}", path)
    options = []
    if method.query:
        pairs = [f"{name}: more.{name}" for name, _ in method.query]
        options.append(f"query: {{ {', '.join(pairs)} }}")
    if method.body and "properties" not in method.body:
        options.append("body")
    elif method.body:
        pairs = [f'op: "{method.op}"'] if method.op else []
        pairs += [
            f"{name}: encode({name})" if method.is_value(schema) else name
            for name, schema in method.required
        ]
        given = [name for name, _ in method.optional if name != "data"]
        pairs += ["data"] if len(given) < len(method.optional) else []
        # What is left out is no member of the JSON, either.
        pairs += (
            [f"{name}: more.{name}" for name in given]
            if method.query
            else ["...more"] * bool(given)
        )
        options.append(f"body: {{ {', '.join(pairs)} }}")
    if method.answer and method.answers_values():
        options.append("hasValues: true")
    quote = "`" if "$" in path else '"'
    arguments = [f'"{method.verb}"', f"{quote}{path}{quote}"]
    arguments += [["", "{ ", options, " }"]] if options else []
    answer = typescript_type(method.answer, used)
    summary = "\n   * ".join(wrapped(method.summary, 92))
    head = call(method.name, parameters, "  ", f": Promise<{answer}> {{", "  ")
    body = call("return this.call", arguments, "    ", ";", "  ")
    return f"  /** {summary} */\n{head}{body}  }}\n"


TYPESCRIPT_HEAD = """// The operations of the internal API. Written by clients/generate.py.

import { encode, pathOf, type %s } from "./values.js";

/** What goes beside a method and a path. */
export interface CallOptions {
  query?: { [name: string]: string | number | boolean | undefined };
  body?: unknown;
  /** The answer has values that JSON lacks. */
  hasValues?: boolean;
}
"""

TYPESCRIPT_CLASS = """
/** A method for each operation; docs/api.md says more of each. */
export abstract class Operations {
  protected abstract call<T>(method: string, path: string, options?: CallOptions): Promise<T>;
"""


def typescript(whole):
    used = {"schemas": whole["components"]["schemas"], "names": set(), "values": set()}
    bodies = [typescript_method(method, used) for method in methods(whole)]
    types = {}
    while used["names"] - types.keys():
        name = min(used["names"] - types.keys())
        types[name] = typescript_interface(name, used["schemas"][name], used)
    head = TYPESCRIPT_HEAD % ", type ".join(sorted(used["values"]))
    interfaces = "".join("\n" + types[name] for name in sorted(types))
    return head + interfaces + TYPESCRIPT_CLASS + "".join("\n" + body for body in bodies) + "}\n"


def python(whole):
    return PYTHON_HEAD + "\n".join(python_method(method) for method in methods(whole))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("--check", action="store_true", help="write nothing, and compare")
    arguments.add_argument("mesophyll", help="the program")
    arguments = arguments.parse_args()
    whole = description(arguments.mesophyll)
    written = {
        "python/mesophyll/operations.py": python(whole),
        "typescript/src/operations.ts": typescript(whole),
    }
    stale = [
        path
        for path, text in written.items()
        if not (CLIENTS / path).exists() or (CLIENTS / path).read_text() != text
    ]
    if arguments.check and stale:
        sys.exit(f"not as the master describes itself, run `make clients`: {', '.join(stale)}")
    for path in stale:
        (CLIENTS / path).write_text(written[path])
        print(f"wrote clients/{path}")


if __name__ == "__main__":
    main()
