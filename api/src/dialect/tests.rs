//! What is said in one dialect, as the others say it: requests, answers and streams in pairs, and that nothing makes a
//! reader or a writer fall over.

use super::*;
use crate::chat::{Block, Stop, Usage};
use proptest::prelude::*;
use serde_json::{Value, json};

const WIRES: [Wire; 3] = [Wire::Chat, Wire::Anthropic, Wire::Gemini];

fn asked(wire: Wire, body: &Value) -> Result<(Asked, Bytes), Error> {
    let body = Bytes::from(body.to_string());
    let model = (wire == Wire::Gemini).then(|| "m".to_owned());
    Ok((Wire::head(&Route { model, ..Route::of(wire) }, &body)?, body))
}

/// A request of one dialect in another.
fn translated(from: Wire, to: Wire, body: &Value) -> Result<Value, Error> {
    let (asked, body) = asked(from, body)?;
    let output_max = asked.head.output_max.unwrap_or(1_024);
    let changes = Changes { model: "up", output_max, output_field: "max_tokens" };
    let out = outgoing(&asked, &body, to, changes)?;
    Ok(serde_json::from_slice(&out).unwrap())
}

fn refused_at(from: Wire, to: Wire, body: &Value) -> String {
    match translated(from, to, body) {
        Err(Error::Invalid { param, .. }) => param.map(Into::into).unwrap_or_default(),
        other => panic!("{body} is not refused: {other:?}"),
    }
}

fn openai(more: Value) -> Value {
    with(json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}), more)
}

fn anthropic(more: Value) -> Value {
    with(json!({"model": "m", "max_tokens": 2_000, "messages": [{"role": "user", "content": "hi"}]}), more)
}

fn gemini(more: Value) -> Value {
    with(json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}), more)
}

fn with(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// Checks that `expected` is what `got` says, member by member; what else `got` holds is of no interest.
fn holds(got: &Value, expected: &Value, case: &str) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&got[name], value, "{case}: {name} of {got}");
    }
}

#[test]
fn what_an_openai_client_says_is_said_to_the_others() {
    let schema = json!({"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}});
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "s", "strict": true, "schema": schema}});
    let config = |config: Value| json!({"generationConfig": with(json!({"maxOutputTokens": 1_024}), config)});
    let none = || json!({});
    let cases = [
        (json!({"temperature": 0.7}), json!({"temperature": 0.7}), config(json!({"temperature": 0.7}))),
        (json!({"top_p": 0.5}), json!({"top_p": 0.5}), config(json!({"topP": 0.5}))),
        (json!({"stop": "x"}), json!({"stop_sequences": ["x"]}), config(json!({"stopSequences": ["x"]}))),
        (
            json!({"stop": ["x", "y"]}),
            json!({"stop_sequences": ["x", "y"]}),
            config(json!({"stopSequences": ["x", "y"]})),
        ),
        (json!({"max_tokens": 7}), json!({"max_tokens": 7}), json!({"generationConfig": {"maxOutputTokens": 7}})),
        (
            json!({"max_completion_tokens": 9}),
            json!({"max_tokens": 9}),
            json!({"generationConfig": {"maxOutputTokens": 9}}),
        ),
        (json!({"user": "u"}), json!({"metadata": {"user_id": "u"}}), none()),
        (json!({"stream": true}), json!({"stream": true}), none()),
        (
            json!({"response_format": format}),
            json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
            config(json!({"responseMimeType": "application/json", "responseJsonSchema": schema})),
        ),
        (json!({"response_format": {"type": "text"}}), none(), config(none())),
        (
            json!({"tools": [tool]}),
            json!({"tools": [{"name": "f", "description": "d", "input_schema": schema}]}),
            json!({"tools": [{"functionDeclarations": [
                {"name": "f", "description": "d", "parametersJsonSchema": schema}]}]}),
        ),
        (
            json!({"tools": [tool], "tool_choice": "required", "parallel_tool_calls": true}),
            json!({"tool_choice": {"type": "any"}}),
            json!({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
        ),
        (
            json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"tool_choice": {"type": "tool", "name": "f"}}),
            json!({"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}}),
        ),
        (
            json!({"tools": [tool], "tool_choice": "none"}),
            json!({"tool_choice": {"type": "none"}}),
            json!({"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}),
        ),
        (
            json!({"tools": [tool], "tool_choice": "auto"}),
            json!({"tool_choice": {"type": "auto"}}),
            json!({"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}),
        ),
        (
            json!({"reasoning_effort": "low", "max_tokens": 5_000}),
            json!({"thinking": {"type": "enabled", "budget_tokens": 1_024}}),
            json!({"generationConfig": {"maxOutputTokens": 5_000,
                "thinkingConfig": {"thinkingBudget": 1_024, "includeThoughts": true}}}),
        ),
        (json!({"reasoning_effort": "none"}), none(), config(json!({"thinkingConfig": {"thinkingBudget": 0}}))),
        (json!({"metadata": {"a": "b"}, "store": true, "service_tier": "auto"}), none(), none()),
        (json!({"n": 1, "logprobs": false, "logit_bias": null}), none(), none()),
    ];
    for (said, to_anthropic, to_gemini) in cases {
        let case = said.to_string();
        holds(&translated(Wire::Chat, Wire::Anthropic, &openai(said.clone())).unwrap(), &to_anthropic, &case);
        holds(&translated(Wire::Chat, Wire::Gemini, &openai(said)).unwrap(), &to_gemini, &case);
    }
}

#[test]
fn messages_of_an_openai_client_keep_their_order_and_parts() {
    let messages = json!([
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "and kind"}]},
        {"role": "user", "content": [{"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"z\":1,\"a\":2}"}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "user", "content": "go on"},
    ]);
    let body = openai(json!({"messages": messages}));
    let got = translated(Wire::Chat, Wire::Anthropic, &body).unwrap();
    assert_eq!(got["system"], json!([{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}]));
    assert_eq!(
        got["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"z": 1, "a": 2}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
                {"type": "text", "text": "go on"}]},
        ])
    );
    let got = translated(Wire::Chat, Wire::Gemini, &body).unwrap();
    assert_eq!(got["systemInstruction"], json!({"parts": [{"text": "be brief"}, {"text": "and kind"}]}));
    assert_eq!(
        got["contents"],
        json!([
            {"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                {"fileData": {"fileUri": "https://example.com/a.png"}}]},
            {"role": "model", "parts": [
                {"functionCall": {"id": "c1", "name": "f", "args": {"z": 1, "a": 2}},
                    "thoughtSignature": "skip_thought_signature_validator"},
                {"functionCall": {"id": "c2", "name": "g", "args": {}}}]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "c1", "name": "f", "response": {"output": "one"}}},
                {"functionResponse": {"id": "c2", "name": "g", "response": {"output": "two"}}}, {"text": "go on"}]},
        ])
    );
}

#[test]
fn what_an_anthropic_client_says_is_said_to_the_others() {
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}});
    let tools = json!([{"name": "f", "input_schema": schema, "cache_control": {"type": "ephemeral"}}]);
    let config = |config: Value| json!({"generationConfig": with(json!({"maxOutputTokens": 2_000}), config)});
    let cases = [
        (json!({"temperature": 1.0}), json!({"temperature": 1}), config(json!({"temperature": 1}))),
        (json!({"stop_sequences": ["x"]}), json!({"stop": ["x"]}), config(json!({"stopSequences": ["x"]}))),
        (json!({"metadata": {"user_id": "u"}}), json!({"user": "u"}), json!({})),
        (
            json!({"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}),
            json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}),
            json!({"systemInstruction": {"parts": [{"text": "s"}]}}),
        ),
        (
            json!({"tools": tools, "tool_choice": {"type": "any", "disable_parallel_tool_use": false}}),
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
                "tool_choice": "required", "parallel_tool_calls": true}),
            json!({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1_500}}),
            json!({"reasoning_effort": "medium"}),
            config(json!({"thinkingConfig": {"thinkingBudget": 1_500, "includeThoughts": true}})),
        ),
        (
            json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
            json!({"reasoning_effort": "xhigh"}),
            json!({}),
        ),
        (json!({"thinking": {"type": "between_tools"}}), json!({}), json!({})),
        (
            json!({"thinking": {"type": "disabled"}}),
            json!({"reasoning_effort": "none"}),
            config(json!({"thinkingConfig": {"thinkingBudget": 0}})),
        ),
        (json!({"service_tier": "auto", "inference_geo": "eu", "speed": "fast"}), json!({}), json!({})),
    ];
    for (said, to_openai, to_gemini) in cases {
        let case = said.to_string();
        holds(&translated(Wire::Anthropic, Wire::Chat, &anthropic(said.clone())).unwrap(), &to_openai, &case);
        holds(&translated(Wire::Anthropic, Wire::Gemini, &anthropic(said)).unwrap(), &to_gemini, &case);
    }
}

#[test]
fn what_a_gemini_client_says_is_said_to_the_others() {
    let own = json!({"type": "OBJECT", "properties": {"q": {"type": "STRING"}}});
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}});
    let tools = json!([{"functionDeclarations": [{"name": "f", "parameters": own}]}]);
    let config = |config: Value| json!({"generationConfig": config});
    let cases = [
        (
            config(json!({"temperature": 0.2, "topP": 0.5})),
            json!({"temperature": 0.2, "top_p": 0.5}),
            json!({"temperature": 0.2, "top_p": 0.5}),
        ),
        (config(json!({"max_output_tokens": 5})), json!({"max_tokens": 5}), json!({"max_tokens": 5})),
        (config(json!({"stopSequences": ["x"]})), json!({"stop": ["x"]}), json!({"stop_sequences": ["x"]})),
        (
            config(json!({"responseMimeType": "application/json", "responseSchema": own})),
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}),
            json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        ),
        (
            json!({"tools": tools, "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}}}),
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            json!({"tools": [{"name": "f", "input_schema": schema}], "tool_choice": {"type": "tool", "name": "f"}}),
        ),
        (
            json!({"system_instruction": {"parts": [{"text": "s"}]}}),
            json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}),
            json!({"system": [{"type": "text", "text": "s"}]}),
        ),
        (json!({"safetySettings": [{"category": "X", "threshold": "Y"}]}), json!({}), json!({})),
        (
            config(
                json!({"candidateCount": 1, "thinkingConfig": {"thinkingLevel": "HIGH"}, "maxOutputTokens": 50_000}),
            ),
            json!({"reasoning_effort": "high"}),
            json!({"thinking": {"type": "enabled", "budget_tokens": 24_576}}),
        ),
    ];
    for (said, to_openai, to_anthropic) in cases {
        let case = said.to_string();
        holds(&translated(Wire::Gemini, Wire::Chat, &gemini(said.clone())).unwrap(), &to_openai, &case);
        holds(&translated(Wire::Gemini, Wire::Anthropic, &gemini(said)).unwrap(), &to_anthropic, &case);
    }
}

#[test]
fn calls_without_ids_are_matched_with_their_answers_in_order() {
    let contents = json!([
        {"role": "user", "parts": [{"text": "hi"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}, {"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "x"}}},
            {"functionResponse": {"name": "f", "response": {"error": "y"}}}]},
    ]);
    let got = translated(Wire::Gemini, Wire::Anthropic, &gemini(json!({"contents": contents}))).unwrap();
    let calls = got["messages"][1]["content"].as_array().unwrap();
    let answers = got["messages"][2]["content"].as_array().unwrap();
    for (call, answer) in calls.iter().zip(answers) {
        assert_eq!(call["id"], answer["tool_use_id"]);
    }
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!((&answers[0]["is_error"], &answers[1]["is_error"]), (&Value::Null, &json!(true)));
}

#[test]
fn what_cannot_be_carried_is_refused_by_its_name() {
    use Wire::{Anthropic as A, Chat as C, Gemini as G};
    for (from, to, body, at) in [
        (C, A, openai(json!({"logprobs": true})), "logprobs"),
        (C, A, openai(json!({"logit_bias": {"1": 2}})), "logit_bias"),
        (C, A, openai(json!({"seed": 7})), "seed"),
        (C, A, openai(json!({"presence_penalty": 1})), "presence_penalty"),
        (C, A, openai(json!({"temperature": 1.5})), "temperature"),
        (C, A, openai(json!({"n": 2})), "n"),
        (C, G, openai(json!({"n": 2})), "n"),
        (C, A, openai(json!({"response_format": {"type": "json_object"}})), "response_format"),
        (C, A, openai(json!({"audio": {"voice": "x"}})), "audio"),
        (C, A, openai(json!({"web_search_options": {}})), "web_search_options"),
        (C, A, openai(json!({"functions": [{"name": "f"}]})), "functions"),
        (C, A, openai(json!({"x_unknown": 1})), "x_unknown"),
        (C, G, openai(json!({"prediction": {"type": "content", "content": "x"}})), "prediction"),
        (C, G, openai(json!({"tools": [{"type": "custom", "custom": {"name": "f"}}]})), "tools[0].type"),
        (
            C,
            G,
            openai(json!({"tools": [{"type": "function", "function": {"name": "f"}}], "parallel_tool_calls": false})),
            "parallel_tool_calls",
        ),
        (
            C,
            A,
            openai(json!({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]})),
            "messages[0].content[0].file.file_id",
        ),
        (
            C,
            A,
            openai(json!({"messages": [{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}]}]})),
            "messages.content.input_audio",
        ),
        (A, C, anthropic(json!({"top_k": 3})), "top_k"),
        (A, C, anthropic(json!({"container": "c"})), "container"),
        (A, C, anthropic(json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})), "tools[0].type"),
        (A, G, anthropic(json!({"mcp_servers": []})), "mcp_servers"),
        (
            A,
            C,
            anthropic(json!({"messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}]}]})),
            "messages.content.source.url",
        ),
        (G, C, gemini(json!({"cachedContent": "c"})), "cachedContent"),
        (G, C, gemini(json!({"tools": [{"googleSearch": {}}]})), "tools[0].googleSearch"),
        (G, A, gemini(json!({"generationConfig": {"seed": 1}})), "seed"),
        (
            G,
            A,
            gemini(json!({"generationConfig": {"responseModalities": ["IMAGE"]}})),
            "generationConfig.responseModalities",
        ),
        (G, A, gemini(json!({"generationConfig": {"candidateCount": 2}})), "generationConfig.candidateCount"),
        (
            G,
            C,
            gemini(json!({"contents": [{"parts": [{"executableCode": {}}]}]})),
            "contents[0].parts[0].executableCode",
        ),
    ] {
        assert_eq!(refused_at(from, to, &body), at, "{body}");
    }
}

fn meta() -> Meta {
    Meta { id: "1".into(), created_s: 1, model: "m".into(), wants_usage: true, is_array: false }
}

fn said(block: Block, text: &str) -> Vec<Event> {
    let mut events = vec![Event::Open(block)];
    events.extend((!text.is_empty()).then(|| Event::Delta(text.to_owned())));
    events
}

fn tool(id: &str, name: &str) -> Block {
    Block::Tool { id: id.into(), name: name.into() }
}

/// Writes events in a dialect, as a stream or in one piece, and reads them again.
fn again(wire: Wire, events: &[Event], is_stream: bool) -> Answer {
    let mut reader = Reader::new(wire, "s");
    let mut read = Vec::new();
    if is_stream {
        let (mut writer, mut out) = (Writer::new(wire, meta()), Vec::new());
        events.iter().for_each(|event| writer.event(event.clone(), &mut out));
        writer.end(&mut out);
        for event in String::from_utf8(out).unwrap().split("\n\n") {
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                reader.event(data.as_bytes(), &mut read).unwrap();
            }
        }
    } else {
        let body = write_answer(wire, &Answer::of(events.to_vec()), &meta());
        reader.answer(&body, &mut read).unwrap();
    }
    let mut answer = Answer::of(read);
    (answer.id, answer.model) = (None, None);
    answer
}

#[test]
fn an_answer_comes_back_from_every_dialect_as_it_was() {
    let usage = Usage { prompt: 20, completion: 9, cached: 5, cache_written: 0, reasoning: 3 };
    let two_calls = [said(tool("a", "f"), r#"{"z":1,"a":"é\n"}"#), said(tool("b", "g"), r#"{"q":[1, 2]}"#)].concat();
    for (body, stop) in [
        (said(Block::Text, "hello\n\"w\u{1f600}rld\""), Stop::End),
        (said(Block::Text, "cut"), Stop::Length),
        (two_calls.clone(), Stop::Tool),
        ([said(Block::Text, "let me see"), two_calls].concat(), Stop::Tool),
        ([said(Block::Thinking, "hm"), said(Block::Text, "so")].concat(), Stop::End),
    ] {
        let mut events = vec![Event::Start { id: None, model: None }];
        events.extend(body);
        events.extend([Event::Stop(stop), Event::Usage(usage), Event::Done]);
        let expected = Answer::of(events.clone());
        for wire in WIRES {
            for is_stream in [false, true] {
                let mut got = again(wire, &events, is_stream);
                // Where there is no signature, Anthropic's form has an empty one, and Gemini's stream ends with an empty text.
                got.blocks.retain(|said| !said.text.is_empty());
                assert_eq!(got, expected, "{wire:?} {is_stream}");
            }
        }
    }
}

#[test]
fn every_reason_to_stop_has_a_word_in_every_dialect() {
    let word = |wire, stop: Stop| -> String {
        let answer = Answer { stop: Some(stop), ..Answer::default() };
        let body: Value = serde_json::from_slice(&write_answer(wire, &answer, &meta())).unwrap();
        let word = match wire {
            Wire::Anthropic => &body["stop_reason"],
            Wire::Gemini => &body["candidates"][0]["finishReason"],
            _ => &body["choices"][0]["finish_reason"],
        };
        word.as_str().unwrap().to_owned()
    };
    for (stop, openai, anthropic, gemini) in [
        (Stop::End, "stop", "end_turn", "STOP"),
        (Stop::Length, "length", "max_tokens", "MAX_TOKENS"),
        (Stop::Tool, "tool_calls", "tool_use", "STOP"),
        (Stop::Sequence(None), "stop", "stop_sequence", "STOP"),
        (Stop::Filter, "content_filter", "refusal", "SAFETY"),
        (Stop::Refusal, "content_filter", "refusal", "SAFETY"),
        (Stop::Pause, "stop", "pause_turn", "OTHER"),
        (Stop::Context, "length", "model_context_window_exceeded", "MAX_TOKENS"),
        (Stop::Malformed, "stop", "end_turn", "MALFORMED_FUNCTION_CALL"),
    ] {
        let words = (word(Wire::Chat, stop.clone()), word(Wire::Anthropic, stop.clone()), word(Wire::Gemini, stop));
        assert_eq!((words.0.as_str(), words.1.as_str(), words.2.as_str()), (openai, anthropic, gemini));
    }
}

#[test]
fn streams_out_of_order_are_told_as_such_and_odd_ones_are_read() {
    let read = |wire, events: &[Value]| {
        let (mut reader, mut out) = (Reader::new(wire, "s"), Vec::new());
        events.iter().try_for_each(|event| reader.event(event.to_string().as_bytes(), &mut out)).map(|()| out)
    };
    let call = |call: Value| json!({"choices": [{"delta": {"tool_calls": [call]}}]});
    // Arguments of a call that nobody began, and of one that another followed.
    assert!(read(Wire::Chat, &[call(json!({"index": 0, "function": {"arguments": "{"}}))]).is_err());
    let began = |index, id| call(json!({"index": index, "id": id, "function": {"name": "f", "arguments": ""}}));
    let late = call(json!({"index": 0, "function": {"arguments": "{"}}));
    assert!(read(Wire::Chat, &[began(0, "a"), began(1, "b"), late]).is_err());
    // Two calls under one index are two.
    let events = read(Wire::Chat, &[began(0, "a"), began(0, "b")]).unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Open(_))).count(), 2);
    let delta = json!({"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}});
    let start = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    assert!(read(Wire::Anthropic, &[start, delta]).is_err());
    let unknown = json!({"type": "something_new", "data": [1]});
    assert_eq!(read(Wire::Anthropic, &[unknown]).unwrap(), []);
    assert_eq!(read(Wire::Gemini, &[json!({})]).unwrap().len(), 1);
}

#[test]
fn a_gemini_request_is_capped_wherever_its_cap_belongs() {
    for (sent, expected) in [
        (r#"{"contents":[1]}"#, r#"{"generationConfig":{"maxOutputTokens":1024},"contents":[1]}"#),
        (
            r#"{"contents":[1],"generationConfig":{}}"#,
            r#"{"contents":[1],"generationConfig":{"maxOutputTokens":1024}}"#,
        ),
        (
            r#"{"contents":[1],"generation_config":{"topK":1}}"#,
            r#"{"contents":[1],"generation_config":{"maxOutputTokens":1024,"topK":1}}"#,
        ),
        (
            r#"{"contents":[1],"generationConfig":{"max_output_tokens":7}}"#,
            r#"{"contents":[1],"generationConfig":{"max_output_tokens":7}}"#,
        ),
    ] {
        let body = Bytes::from(sent);
        let asked = Wire::head(&Route { model: Some("m".into()), ..Route::of(Wire::Gemini) }, &body).unwrap();
        let changes = Changes { model: "up", output_max: 1_024, output_field: "max_tokens" };
        assert_eq!(outgoing(&asked, &body, Wire::Gemini, changes).unwrap(), expected);
    }
}

#[test]
fn embeddings_cross_over_with_their_numbers() {
    let sent = json!({"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "base64"});
    let (asked, body) = asked(Wire::Embeddings, &sent).unwrap();
    let changes = Changes { model: "up", output_max: 0, output_field: "max_tokens" };
    let got: Value =
        serde_json::from_slice(&outgoing(&asked, &body, Wire::GeminiEmbedBatch, changes).unwrap()).unwrap();
    assert_eq!(
        got["requests"][1],
        json!({"model": "models/up", "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 3})
    );
    let reply = br#"{"embeddings":[{"values":[0.5,-1]},{"values":[2]}]}"#;
    let usage = Usage { prompt: 4, ..Usage::default() };
    let plain = embed::answer(Wire::Embeddings, Wire::GeminiEmbedBatch, reply, "m", usage, false).unwrap();
    let plain: Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!((&plain["data"][0]["embedding"], &plain["usage"]["prompt_tokens"]), (&json!([0.5, -1]), &json!(4)));
    let packed = embed::answer(Wire::Embeddings, Wire::GeminiEmbedBatch, reply, "m", usage, true).unwrap();
    let packed: Value = serde_json::from_slice(&packed).unwrap();
    assert_eq!(packed["data"][1]["embedding"], "AAAAQA==");
}

fn answer_events() -> impl Strategy<Value = Vec<Event>> {
    let text = "[ -~é漢\n\"\\\\]{1,12}";
    let args = prop::collection::btree_map("[a-z]{1,4}", "[ -~é]{0,6}", 0..3).prop_map(|map| json!(map).to_string());
    let block = prop_oneof![
        text.prop_map(|text| said(Block::Text, &text)),
        ("[a-z0-9]{1,6}", "[a-z_]{1,6}", args).prop_map(|(id, name, args)| said(tool(&id, &name), &args)),
    ];
    (prop::collection::vec(block, 1..4), 0u64..9_999, 0u64..9_999).prop_map(|(blocks, prompt, completion)| {
        let mut events: Vec<Event> = blocks.concat();
        events.push(Event::Usage(Usage { prompt, completion, ..Usage::default() }));
        events
    })
}

proptest! {
    #[test]
    fn texts_arguments_and_usage_survive_every_dialect(events in answer_events(), is_stream in any::<bool>()) {
        let expected = Answer::of(events.clone());
        for wire in WIRES {
            let got = again(wire, &events, is_stream);
            let texts = |answer: &Answer| answer.texts(|block| *block == Block::Text);
            let calls = |answer: &Answer| -> Vec<_> {
                let tools = answer.blocks.iter().filter(|said| matches!(said.block, Block::Tool { .. }));
                tools.map(|said| (said.block.clone(), said.arguments().to_owned())).collect()
            };
            prop_assert_eq!(texts(&got), texts(&expected));
            prop_assert_eq!(calls(&got).len(), calls(&expected).len());
            for (got, expected) in calls(&got).into_iter().zip(calls(&expected)) {
                prop_assert_eq!(got, expected);
            }
            prop_assert_eq!(got.usage, expected.usage);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for wire in WIRES {
            let mut out = Vec::new();
            let _ = Reader::new(wire, "s").event(&bytes, &mut out);
            let _ = Reader::new(wire, "s").answer(&bytes, &mut out);
            let _ = failure(wire.family(), 0, &bytes);
            let _ = Wire::head(&Route::of(wire), &bytes);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let _ = read_request(wire, text);
            }
        }
    }

    #[test]
    fn no_json_makes_a_reader_fall_over(
        names in prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..8),
        value in prop::sample::select(VALUES.to_vec()),
    ) {
        let mut text = value.to_owned();
        for (depth, name) in names.iter().enumerate() {
            text = if depth % 2 == 0 { format!(r#"{{"{name}":{text},"type":"tool_use"}}"#) } else { format!("[{text}]") };
        }
        for wire in WIRES {
            let mut out = Vec::new();
            let _ = Reader::new(wire, "s").event(text.as_bytes(), &mut out);
            let _ = Reader::new(wire, "s").answer(text.as_bytes(), &mut out);
            let _ = read_request(wire, &text);
        }
    }
}

const NAMES: [&str; 18] = [
    "messages",
    "content",
    "choices",
    "delta",
    "message",
    "tool_calls",
    "function",
    "candidates",
    "parts",
    "contents",
    "functionCall",
    "usage",
    "tools",
    "content_block",
    "generationConfig",
    "parameters",
    "items",
    "error",
];
const VALUES: [&str; 9] = ["null", "1", "-1", "1e999", "\"x\"", "[]", "{}", "true", "{\"type\":\"text\",\"text\":7}"];

#[test]
fn deep_json_is_refused_and_not_recursed_into() {
    let deep = |name: &str| format!(r#"{{"{name}":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    for wire in WIRES {
        for name in NAMES {
            let text = deep(name);
            let _ = Reader::new(wire, "s").answer(text.as_bytes(), &mut Vec::new());
            let _ = read_request(wire, &text);
            let _ = Wire::head(&Route::of(wire), text.as_bytes());
        }
    }
}
