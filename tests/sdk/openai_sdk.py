#!/usr/bin/env python3
"""The official OpenAI SDK, unmodified, against the gateway.

Starts `gatewayd dev` and a `gatewayd serve` in front of the scripted upstream, talks to both as an application would,
and prints one line for each fact. `make sdk` runs it in a virtual environment of its own.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import openai
from openai import AsyncOpenAI, OpenAI

ADMIN_KEY = "adm_sdk-test-only-0123456789abcdef0123456789"
HELLO = [{"role": "user", "content": "hello there"}]
PATIENCE_S = 20

CONFIG = """
[node]
data_dir = "{data}"
[http]
listen = "127.0.0.1:0"
[identity]
admin_key = "{admin}"
[scheduling]
queue_timeout_ms = 5000
[upstream]
first_byte_timeout_ms = 1500
[provider.local."chat"]
base_url = "{upstream}/v1"
api_key = "upstream-key"
max_tokens_per_sec = 1000000
max_context_length = 4000
[provider.local."one"]
base_url = "{upstream}/v1"
tokenizer = "bytes"
max_concurrent = 1
[provider.local."slow-refill"]
base_url = "{upstream}/v1"
tokenizer = "bytes"
max_tokens_per_sec = 400
burst_tokens = 400
[provider.local."endless"]
base_url = "{upstream}/v1"
[provider.local."cut"]
base_url = "{upstream}/v1"
[provider.local."fails"]
base_url = "{upstream}/v1"
[provider.local."flaky"]
base_url = "{upstream}/v1"
[provider.local."hangs"]
base_url = "{upstream}/v1"
[provider.local."nobody"]
base_url = "http://127.0.0.1:1/v1"
"""


def rule(model, **reply):
    times = reply.pop("times", None)
    return {"model": model, "times": times, "reply": reply}


SCRIPT = {
    "otherwise": {"output_tokens": 12},
    "rules": [
        rule("one", hold="main", output_tokens=3),
        rule("slow-refill"),
        rule("endless", output_tokens=1000, chunk_delay_ms=20),
        rule("cut", act={"cut_after": {"chunks": 3, "reset": False}}, output_tokens=50),
        rule("fails", act={"status": {"status": 500, "body": None}}),
        rule("flaky", act={"status": {"status": 503, "body": None}}, times=1),
        rule("hangs", act="hang"),
    ],
}


class Checks:
    def __init__(self):
        self.failed = 0

    def run(self, name, check):
        began = time.monotonic()
        try:
            detail = check() or ""
            verdict = "ok  "
        except Exception as error:  # A fact that does not hold is told, and the next one tried.
            self.failed += 1
            verdict, detail = "FAIL", f"{type(error).__name__}: {error}"
        print(f"{verdict} {name} ({time.monotonic() - began:.2f} s) {detail}", flush=True)


@contextlib.contextmanager
def process(command, log):
    with open(log, "wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=clean_environment())
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("TOKLIGENCE_", "OPENAI_"))}


def when(what, child, ready, log):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        value = ready()
        if value:
            return value
        if child.poll() is not None:
            break
        time.sleep(0.01)
    sys.exit(f"{what} did not come up:\n{pathlib.Path(log).read_text()}")


def read(path):
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def call(method, url, body=None, key=None):
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
        return reply.read().decode()


def raises(kind, make, **expected):
    try:
        make()
    except kind as error:
        if type(error) is not kind:
            raise AssertionError(f"{type(error).__name__} instead of {kind.__name__}: {error}") from error
        for name, value in expected.items():
            if getattr(error, name) != value:
                raise AssertionError(f"{name} is {getattr(error, name)!r}, not {value!r}: {error}") from error
        return error
    raise AssertionError(f"no {kind.__name__}")


def equal(left, right):
    if left != right:
        raise AssertionError(f"{left!r} is not {right!r}")


def text_of(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def dev_checks(checks, base, key):
    client = OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=PATIENCE_S)
    model = client.models.list().data[0].id
    create = client.chat.completions.create

    def plain():
        reply = create(model=model, messages=HELLO)
        equal(reply.choices[0].message.content, "You said: hello there")
        equal(reply.choices[0].finish_reason, "stop")
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
        assert reply._request_id, "no request id"

    def streamed():
        chunks = list(create(model=model, messages=HELLO, stream=True))
        equal(text_of(chunks), "You said: hello there")
        assert all(chunk.usage is None and chunk.choices for chunk in chunks), "usage that nobody asked for"
        equal(chunks[-1].choices[0].finish_reason, "stop")

    def with_usage():
        chunks = list(create(model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}))
        equal(chunks[-1].choices, [])
        assert chunks[-1].usage.completion_tokens > 0

    def helper():
        with client.chat.completions.stream(model=model, messages=HELLO) as stream:
            for _ in stream:
                pass
        equal(stream.get_final_completion().choices[0].message.content, "You said: hello there")

    def models():
        equal(client.models.retrieve(model).id, model)
        raises(openai.NotFoundError, lambda: client.models.retrieve("nothing"), code="model_not_found")

    def headers():
        raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
        for name in ["x-request-id", "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]:
            assert raw.headers.get(name), f"no {name}"

    async def many():
        async with AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0) as client:
            replies = [client.chat.completions.create(model=model, messages=HELLO) for _ in range(50)]
            for reply in await asyncio.gather(*replies):
                equal(reply.choices[0].message.content, "You said: hello there")

    wrong = OpenAI(base_url=f"{base}/v1", api_key="tok_wrong", timeout=PATIENCE_S)
    checks.run("dev: plain", plain)
    checks.run("dev: streamed", streamed)
    checks.run("dev: streamed with usage", with_usage)
    checks.run("dev: stream helper", helper)
    checks.run("dev: models", models)
    checks.run("dev: rate limit headers", headers)
    checks.run("dev: 50 at once, async", lambda: asyncio.run(many()))
    checks.run(
        "dev: unknown model",
        lambda: str(raises(openai.NotFoundError, lambda: create(model="nothing", messages=HELLO), code="model_not_found")),
    )
    checks.run(
        "dev: wrong key",
        lambda: str(raises(openai.AuthenticationError, lambda: wrong.models.list(), code="invalid_api_key")),
    )
    for name, fields in {
        "n = 10^9": {"n": 10**9},
        "max_tokens = -1": {"max_tokens": -1},
        "max_tokens of a wrong type": {"max_tokens": "many"},
        "messages that are no list": {"messages": "hello"},
        "an output over the context": {"max_tokens": 10**7},
    }.items():
        fields = {"model": model, "messages": HELLO} | fields
        checks.run(f"dev: bad request, {name}", lambda: str(raises(openai.BadRequestError, lambda: create(**fields))))


class Pool:
    """The gateway in front of the scripted upstream."""

    def __init__(self, base, upstream):
        self.base, self.upstream = base, upstream

    def key(self, name, **fields):
        made = json.loads(call("POST", f"{self.base}/api/v1/admin/keys", {"name": name} | fields, ADMIN_KEY))
        return made["key"]

    def client(self, key, **options):
        return OpenAI(base_url=f"{self.base}/v1", api_key=key, **({"max_retries": 0, "timeout": PATIENCE_S} | options))

    def stats(self):
        return json.loads(call("GET", f"{self.upstream}/_control/stats"))

    def calls(self, model):
        return [c for c in json.loads(call("GET", f"{self.upstream}/_control/record")) if c["model"] == model]

    def release(self, count):
        call("POST", f"{self.upstream}/_control/release/main/{count}")

    def metric(self, name):
        lines = call("GET", f"{self.base}/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def rows(self, model):
        rows = json.loads(call("GET", f"{self.base}/api/v1/admin/usage?format=json", key=ADMIN_KEY))
        return [row for row in rows if row["pool"] == model]

    def until(self, what, is_so):
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            if time.monotonic() > end:
                raise AssertionError(f"it never came to this: {what}")
            time.sleep(0.02)

    def idle(self):
        self.until("no call is open", lambda: self.metric("tokligence_requests_in_flight") == 0)


def pool_checks(checks, pool):
    key = pool.key("app")
    client = pool.client(key)
    create = client.chat.completions.create

    def passes_through():
        reply = create(
            model="chat",
            messages=[{"role": "system", "content": "Sei brief: zażółć 漢字 🙂"}] + HELLO,
            max_completion_tokens=7,
            temperature=0.5,
            seed=7,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
            response_format={"type": "json_object"},
            user="u1",
            extra_body={"vendor_field": {"kept": [1, 2.50]}},
            extra_headers={"OpenAI-Beta": "yes"},
        )
        equal(reply.usage.completion_tokens, 7)
        sent = pool.calls("chat")[-1]
        body, headers = json.loads(sent["body"]), dict(sent["headers"])
        equal(body["vendor_field"], {"kept": [1, 2.5]})
        equal((body["seed"], body["temperature"], body["user"], body["max_completion_tokens"]), (7, 0.5, "u1", 7))
        equal(body["messages"][0]["content"], "Sei brief: zażółć 漢字 🙂")
        equal((headers["authorization"], headers["openai-beta"]), ("Bearer upstream-key", "yes"))

    def streamed():
        equal(text_of(create(model="chat", messages=HELLO, stream=True)), "word " * 12)
        chunks = list(create(model="chat", messages=HELLO, stream=True, stream_options={"include_usage": True}))
        equal((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 12))

    def context():
        long = [{"role": "user", "content": "word " * 6000}]
        make = lambda: create(model="chat", messages=long)
        return str(raises(openai.BadRequestError, make, code="context_length_exceeded"))

    def queue_timeout():
        holder = threading.Thread(target=lambda: create(model="one", messages=HELLO))
        holder.start()
        pool.until("one runs", lambda: pool.stats()["in_flight"] == 1)
        short = {"X-Tokligence-Timeout-Ms": "200"}
        make = lambda: create(model="one", messages=HELLO, extra_headers=short)
        error = raises(openai.RateLimitError, make, code="rate_limit_exceeded")
        headers = error.response.headers
        assert int(headers["retry-after"]) >= 1 and int(headers["retry-after-ms"]) >= 1, headers
        threading.Timer(0.6, lambda: pool.release(2)).start()
        began = time.monotonic()
        reply = pool.client(key, max_retries=10).chat.completions.create(model="one", messages=HELLO, extra_headers=short)
        holder.join()
        equal(reply.choices[0].finish_reason, "stop")
        return f"retry-after-ms {headers['retry-after-ms']}; served after {time.monotonic() - began:.2f} s of retries"

    def retry_after():
        # The upstream uses all of the cap, so that nothing comes back but by refill.
        fields = {"model": "slow-refill", "messages": HELLO, "max_tokens": 350}
        fields["extra_headers"] = {"X-Tokligence-Timeout-Ms": "100"}
        create(**fields)
        error = raises(openai.RateLimitError, lambda: create(**fields), code="rate_limit_exceeded")
        wait_ms = int(error.response.headers["retry-after-ms"])
        equal(int(error.response.headers["retry-after"]), -(-wait_ms // 1000))
        began = time.monotonic()
        pool.client(key, max_retries=3).chat.completions.create(**fields)
        took_ms = (time.monotonic() - began) * 1000
        # A burst of 400 refills in one second; the first try comes too early, the second when it was told to.
        assert 500 < wait_ms < 2000 and wait_ms <= took_ms < wait_ms + 1500, (wait_ms, took_ms)
        return f"retry-after-ms {wait_ms}, served after {took_ms:.0f} ms"

    def no_retry_when_out_of_quota():
        limited = pool.client(pool.key("quota", tokens_per_day=60), max_retries=5)
        limited.chat.completions.create(model="chat", messages=HELLO, max_tokens=12)
        before = len(pool.calls("chat"))
        began = time.monotonic()
        make = lambda: limited.chat.completions.create(model="chat", messages=HELLO, max_tokens=60)
        error = raises(openai.RateLimitError, make)
        took = time.monotonic() - began
        assert took < 1.0, f"the SDK retried for {took:.1f} s"
        equal(len(pool.calls("chat")), before)
        return f"{error.code}: {error}"

    def rate_of_key():
        limited = pool.client(pool.key("rps", rps=2, burst_requests=2))
        for _ in range(2):
            limited.chat.completions.create(model="chat", messages=HELLO)
        make = lambda: limited.chat.completions.create(model="chat", messages=HELLO)
        error = raises(openai.RateLimitError, make, code="rate_limit_exceeded", type="requests")
        retrying = limited.with_options(max_retries=3)
        retrying.chat.completions.create(model="chat", messages=HELLO)
        return f"retry-after-ms {error.response.headers['retry-after-ms']}"

    def cancel():
        stream = create(model="endless", messages=HELLO, stream=True)
        for index, _ in enumerate(stream):
            if index == 3:
                break
        stream.close()
        pool.until("the upstream sees it", lambda: pool.stats()["in_flight"] == 0)
        pool.idle()
        pool.until("the row is there", lambda: pool.rows("endless"))
        row = pool.rows("endless")[0]
        equal(row["status"], "cut")
        assert 0 < row["charged_tokens"] < 200, row
        return f"charged {row['charged_tokens']} of {row['reserved_tokens']} reserved"

    def client_timeout():
        make = lambda: pool.client(key, timeout=0.5).chat.completions.create(model="hangs", messages=HELLO)
        raises(openai.APITimeoutError, make)
        pool.idle()
        pool.until("the upstream sees it", lambda: pool.stats()["in_flight"] == 0)

    def queued_client_leaves():
        holder = threading.Thread(target=lambda: create(model="one", messages=HELLO))
        holder.start()
        pool.until("one runs", lambda: pool.stats()["in_flight"] == 1)
        make = lambda: pool.client(key, timeout=0.3).chat.completions.create(model="one", messages=HELLO)
        raises(openai.APITimeoutError, make)
        pool.until("nobody waits", lambda: pool.metric("tokligence_scheduling_queue_depth") == 0)
        before = len(pool.calls("one"))
        pool.release(1)
        holder.join()
        equal(len(pool.calls("one")), before)

    def upstream_timeout():
        make = lambda: create(model="hangs", messages=HELLO)
        return str(raises(openai.InternalServerError, make, status_code=504, code="upstream_timeout"))

    def cut_stream():
        seen = []

        def consume():
            for chunk in create(model="cut", messages=HELLO, stream=True):
                seen.append(chunk)

        error = raises(openai.APIError, consume, code="upstream_broken")
        assert len(seen) >= 3
        return str(error)

    def upstream_error():
        before = len(pool.calls("fails"))
        make = lambda: pool.client(key, max_retries=2).chat.completions.create(model="fails", messages=HELLO)
        error = raises(openai.InternalServerError, make, status_code=500)
        equal(len(pool.calls("fails")) - before, 3)
        return str(error)

    def upstream_recovers():
        pool.client(key, max_retries=2).chat.completions.create(model="flaky", messages=HELLO)
        equal(len(pool.calls("flaky")), 2)

    def unreachable():
        make = lambda: create(model="nobody", messages=HELLO)
        error = raises(openai.InternalServerError, make, status_code=502, code="upstream_unreachable")
        equal(pool.rows("nobody"), [])
        return str(error)

    def model_not_allowed():
        narrow = pool.client(pool.key("narrow", models=["chat"]))
        make = lambda: narrow.chat.completions.create(model="fails", messages=HELLO)
        error = raises(openai.PermissionDeniedError, make, code="model_not_allowed")
        equal([model.id for model in narrow.models.list()], ["chat"])
        return str(error)

    checks.run("pool: every field reaches the upstream", passes_through)
    checks.run("pool: streamed, with and without usage", streamed)
    checks.run("pool: prompt over the context", context)
    checks.run("pool: queue timeout is a RateLimitError, retries come through", queue_timeout)
    checks.run("pool: retry-after of a token rate is honoured", retry_after)
    checks.run("pool: out of quota is not retried", no_retry_when_out_of_quota)
    checks.run("pool: a key's request rate", rate_of_key)
    checks.run("pool: client cancels a stream", cancel)
    checks.run("pool: client times out", client_timeout)
    checks.run("pool: client times out in the queue", queued_client_leaves)
    checks.run("pool: upstream times out", upstream_timeout)
    checks.run("pool: upstream cuts a stream", cut_stream)
    checks.run("pool: upstream fails, three tries", upstream_error)
    checks.run("pool: upstream recovers, two tries", upstream_recovers)
    checks.run("pool: upstream cannot be reached", unreachable)
    checks.run("pool: model that the key may not use", model_not_allowed)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="target/debug", help="where gatewayd and scripted-upstream are")
    binaries = pathlib.Path(parser.parse_args().bin)
    checks = Checks()
    print(f"openai {openai.__version__}, Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)

        def start(name, command, ready):
            log = folder / f"{name}.log"
            child = stack.enter_context(process([str(part) for part in command], log))
            return when(name, child, ready, log)

        def address(data):
            text = read(data / "ready.json")
            return f"http://{json.loads(text)['address']}" if text else ""

        dev = folder / "dev"
        base = start(
            "dev", [binaries / "gatewayd", "dev", "--data-dir", dev, "--listen", "127.0.0.1:0"], lambda: address(dev)
        )
        dev_checks(checks, base, (dev / "key").read_text().strip())

        (folder / "script.json").write_text(json.dumps(SCRIPT))
        upstream = start(
            "upstream",
            [binaries / "scripted-upstream", "--listen", "127.0.0.1:0", "--script", folder / "script.json"]
            + ["--address-file", folder / "address"],
            lambda: read(folder / "address"),
        )
        upstream = f"http://{upstream.strip()}"
        data = folder / "serve"
        (folder / "gateway.toml").write_text(CONFIG.format(data=data, admin=ADMIN_KEY, upstream=upstream))
        base = start("serve", [binaries / "gatewayd", "serve", "--config", folder / "gateway.toml"], lambda: address(data))
        pool_checks(checks, Pool(base, upstream))
        if checks.failed:
            print((folder / "serve.log").read_text()[-4000:])
    print("all hold" if not checks.failed else f"{checks.failed} do not hold")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
