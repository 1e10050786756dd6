"""The official OpenAI, Anthropic and Google SDKs, unmodified, against upstreams of all three dialects through the gateway.

Prints one line per client, upstream and case; exits 1 when one does not hold. Started by run.sh.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import anthropic
import openai
from google import genai
from google.genai import errors, types

ADMIN_KEY = "adm_sdk-only-0123456789abcdef0123456789abcdef"
UPSTREAMS = ["openai", "anthropic", "gemini"]
TEXT = 'zażółć 漢字 🙂 "quoted"\nline'
ARGUMENTS = {"city": "Łódź", "days": [1, 2]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}

CONFIG = """
[node]
data_dir = "{data}"
[http]
listen = "127.0.0.1:0"
[peer]
listen = "127.0.0.1:0"
[identity]
admin_key = "{admin}"
[upstream]
first_byte_timeout_ms = 1000
"""
POOL = """
[provider.local."{name}"]
dialect = "{name}"
base_url = "{url}"
api_key = "up-key"
"""


def reply(**more):
    return {"text": TEXT, "output_tokens": 40, "prompt_tokens": 123, **more}


TOOLS = [["call_1", "weather", json.dumps(ARGUMENTS)], ["call_2", "weather", "{}"]]
SCRIPT = {
    "rules": [
        {"body_contains": "case: tools", "reply": reply(tools=TOOLS)},
        {"body_contains": "case: too many", "reply": {"act": {"status": {"status": 429, "body": None}}}},
        {"body_contains": "case: fails", "reply": {"act": {"status": {"status": 500, "body": None}}}},
        {"body_contains": "case: bad", "reply": {"act": {"status": {"status": 400, "body": None}}}},
        {"body_contains": "case: hangs", "reply": {"act": "hang"}},
        {
            "body_contains": "case: cut",
            "reply": {"act": {"cut_after": {"chunks": 2, "reset": False}}, "output_tokens": 9, "chunk_delay_ms": 5},
        },
    ],
    "otherwise": reply(),
}


class Openai:
    name = "openai"
    stops = {"end": "stop", "tools": "tool_calls"}
    raised = {
        "too many": openai.RateLimitError,
        "fails": openai.InternalServerError,
        "bad": openai.BadRequestError,
        "hangs": openai.InternalServerError,
        "cut": openai.APIError,
    }

    def __init__(self, base, key):
        self.client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)

    def ask(self, model, text, stream, image=False, history=()):
        content = text
        if image:
            url = {"url": f"data:image/png;base64,{PIXEL}"}
            content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": url}]
        function = {"name": "weather", "parameters": SCHEMA}
        arguments = dict(
            model=model,
            max_tokens=500,
            messages=[{"role": "system", "content": "s"}, {"role": "user", "content": content}, *history],
            tools=[{"type": "function", "function": function}],
        )
        if not stream:
            return self.client.chat.completions.create(**arguments)
        with self.client.chat.completions.stream(**arguments, stream_options={"include_usage": True}) as events:
            for _ in events:
                pass
            return events.get_final_completion()

    def read(self, answer):
        choice = answer.choices[0]
        calls = [(c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or []]
        usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        return choice.message.content, calls, choice.finish_reason, usage

    def history(self, answer):
        calls = answer.choices[0].message.tool_calls
        results = [{"role": "tool", "tool_call_id": c.id, "content": f"result of {c.id}"} for c in calls]
        return [answer.choices[0].message, *results]


class Anthropic:
    name = "anthropic"
    stops = {"end": "end_turn", "tools": "tool_use"}
    raised = {
        "too many": anthropic.RateLimitError,
        "fails": anthropic.InternalServerError,
        "bad": anthropic.BadRequestError,
        "hangs": anthropic.APIStatusError,
        "cut": anthropic.APIError,
    }

    def __init__(self, base, key):
        self.client = anthropic.Anthropic(base_url=f"{base}/anthropic", api_key=key, max_retries=0)

    def ask(self, model, text, stream, image=False, history=()):
        content = text
        if image:
            source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
            content = [{"type": "text", "text": text}, {"type": "image", "source": source}]
        arguments = dict(
            model=model,
            max_tokens=500,
            system="s",
            messages=[{"role": "user", "content": content}, *history],
            tools=[{"name": "weather", "input_schema": SCHEMA}],
        )
        if not stream:
            return self.client.messages.create(**arguments)
        with self.client.messages.stream(**arguments) as events:
            for _ in events:
                pass
            return events.get_final_message()

    def read(self, answer):
        text = "".join(block.text for block in answer.content if block.type == "text")
        calls = [(block.name, block.input) for block in answer.content if block.type == "tool_use"]
        return text, calls, answer.stop_reason, (answer.usage.input_tokens, answer.usage.output_tokens)

    def history(self, answer):
        calls = [block for block in answer.content if block.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": c.id, "content": f"result of {c.id}"} for c in calls]
        return [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]


class Gemini:
    name = "gemini"
    stops = {"end": "STOP", "tools": "STOP"}
    raised = {
        "too many": errors.ClientError,
        "fails": errors.ServerError,
        "bad": errors.ClientError,
        "hangs": errors.ServerError,
        "cut": errors.APIError,
    }

    def __init__(self, base, key):
        self.client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=base))

    def ask(self, model, text, stream, image=False, history=()):
        import base64

        parts = [types.Part(text=text)]
        if image:
            parts.append(types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png"))
        function = types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
        arguments = dict(
            model=model,
            contents=[types.Content(role="user", parts=parts), *history],
            config=types.GenerateContentConfig(
                system_instruction="s", max_output_tokens=500, tools=[types.Tool(function_declarations=[function])]
            ),
        )
        if not stream:
            return [self.client.models.generate_content(**arguments)]
        return list(self.client.models.generate_content_stream(**arguments))

    def parts(self, answer):
        for chunk in answer:
            for candidate in chunk.candidates or []:
                yield from (candidate.content.parts if candidate.content else None) or []

    def read(self, answer):
        text = "".join(part.text or "" for part in self.parts(answer))
        calls = [(p.function_call.name, p.function_call.args or {}) for p in self.parts(answer) if p.function_call]
        usage = answer[-1].usage_metadata
        stop = answer[-1].candidates[0].finish_reason.value
        return text, calls, stop, (usage.prompt_token_count, usage.candidates_token_count)

    def history(self, answer):
        said = [part for part in self.parts(answer) if part.text or part.function_call]
        results = [
            types.Part(
                function_response=types.FunctionResponse(
                    id=p.function_call.id, name=p.function_call.name, response={"output": f"result of {p.function_call.id}"}
                )
            )
            for p in said
            if p.function_call
        ]
        return [types.Content(role="model", parts=said), types.Content(role="user", parts=results)]


def check(client, model, upstream_calls):
    """Yields what does not hold, by case."""
    for stream in [False, True]:
        kind = "streamed" if stream else "plain"
        got = client.read(client.ask(model, "case: text", stream))
        yield f"{kind} text", got, (TEXT, [], client.stops["end"], (123, 40))
        answer = client.ask(model, "case: tools", stream)
        expected = [("weather", ARGUMENTS), ("weather", {})]
        yield f"{kind} two calls", client.read(answer), (TEXT, expected, client.stops["tools"], (123, 40))
        history = client.history(answer)
        # The script answers with calls to whatever says so; the second turn says something else.
        got = client.read(client.ask(model, "case: results", stream, history=history))
        sent = upstream_calls()[-1]["body"]
        results = [f"result of call_{n}" in sent for n in (1, 2)]
        yield f"{kind} results", (got[0], results), (TEXT, [True, True])
        got = client.read(client.ask(model, "case: image", stream, image=True))
        sent = upstream_calls()[-1]["body"].replace("-", "+").replace("_", "/")
        yield f"{kind} image", (got[0], PIXEL in sent), (TEXT, True)
        for case, error in client.raised.items():
            if case == "cut" and not stream:
                continue
            try:
                client.ask(model, f"case: {case}", stream)
                yield f"{kind} {case}", "no error", error.__name__
            except Exception as raised:
                yield f"{kind} {case}", error.__name__ if isinstance(raised, error) else repr(raised), error.__name__


def read(path):
    return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def process(command, log, ready):
    with open(log, "w") as out, subprocess.Popen([str(part) for part in command], stdout=out, stderr=out) as child:
        try:
            for _ in range(600):
                if ready():
                    break
                if child.poll() is not None:
                    raise SystemExit(f"{command[0]} ended:\n{read(pathlib.Path(log))}")
                time.sleep(0.05)
            yield
        finally:
            child.terminate()


def call(method, url, body=None, key=None):
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)
    request.add_header("content-type", "application/json")
    if key:
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="target/debug", help="where gatewayd and scripted-upstream are")
    binaries = pathlib.Path(parser.parse_args().bin)
    print(f"openai {openai.__version__}, anthropic {anthropic.__version__}, google-genai {genai.__version__}")
    failed = total = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        (folder / "script.json").write_text(json.dumps(SCRIPT))
        address = folder / "address"
        upstream = [binaries / "scripted-upstream", "--listen", "127.0.0.1:0", "--script", folder / "script.json"]
        stack.enter_context(process([*upstream, "--address-file", address], folder / "up.log", address.exists))
        up = f"http://{address.read_text().strip()}"
        data = folder / "data"
        pools = "".join(POOL.format(name=name, url=f"{up}/v1") for name in UPSTREAMS)
        (folder / "gateway.toml").write_text(CONFIG.format(data=data, admin=ADMIN_KEY) + pools)
        ready = data / "ready.json"
        command = [binaries / "gatewayd", "serve", "--config", folder / "gateway.toml"]
        stack.enter_context(process(command, folder / "serve.log", ready.exists))
        base = f"http://{json.loads(ready.read_text())['address']}"
        key = call("POST", f"{base}/api/v1/admin/keys", {"name": "sdk"}, ADMIN_KEY)["key"]
        for client in [Openai(base, key), Anthropic(base, key), Gemini(base, key)]:
            for model in UPSTREAMS:
                for case, got, expected in check(client, model, lambda: call("GET", f"{up}/_control/record")):
                    total += 1
                    if got != expected:
                        failed += 1
                        print(f"FAILS  {client.name} client, {model} upstream, {case}: {got!r}, not {expected!r}")
        if failed:
            print(read(folder / "serve.log")[-3000:])
    print(f"{total} cases of 3 SDKs and 3 upstreams: " + ("all hold" if not failed else f"{failed} do not hold"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
