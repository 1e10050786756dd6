"""Prints the fields of the request types of the three SDKs, one `sdk field` per line: `fields.py > tests/sdk/fields.txt`.

Run it in an environment that holds the SDKs; docs/dialect-fields.md has to have a row for every line.
"""

import typing

import anthropic.types.message_create_params as anthropic_params
import openai.types.chat.completion_create_params as openai_params
from google.genai import types


def of_typed_dict(kind):
    return sorted(typing.get_type_hints(kind, include_extras=True))


def of_model(kind):
    return sorted(kind.model_fields)


for name in of_typed_dict(openai_params.CompletionCreateParamsBase) + ["stream"]:
    print("openai", name)
for name in of_typed_dict(anthropic_params.MessageCreateParamsBase) + ["stream"]:
    print("anthropic", name)
for name in of_model(types.GenerateContentConfig) + ["contents", "model"]:
    print("google-genai", name)
