//! One-shot answers: the tokens of the reference, the JSON of the interface, stdin, histories, limits.

use crate::support::{Home, fixture, json, llama};
use serde_json::Value;

fn raw<'a>(model: &'a str, prompt: &'a str, n: &'a str) -> Vec<&'a str> {
    vec!["--model", model, "-p", prompt, "--raw", "--temperature", "0", "-n", n, "--threads", "2"]
}

#[test]
fn greedy_continuation_is_the_reference() {
    let Some(folder) = fixture("stories260K") else { return };
    let reference = json(&folder.join("reference.json"));
    for (file, precision) in
        [("stories260K-f32.gguf", "f32"), ("stories260K-f16.gguf", "f32"), ("stories260K-bf16.gguf", "f32")]
    {
        let model = folder.join("gguf").join(file);
        let rows = reference["gguf"][file].as_array().unwrap();
        for (prompt, row) in reference["prompts"].as_array().unwrap().iter().zip(rows) {
            let expected = row["exact"]["greedy"].as_array().unwrap();
            let mut arguments = raw(model.to_str().unwrap(), prompt["text"].as_str().unwrap(), "64");
            arguments.extend(["--output", "json", "--precision", precision]);
            let answer = Home::new().run(&arguments).ends_with(0).json();
            let ids = answer["token_ids"].as_array().unwrap();
            assert_eq!(answer["usage"]["prompt_tokens"], prompt["ids"].as_array().unwrap().len(), "{file}");
            assert_eq!(ids.as_slice(), &expected[..ids.len()], "{file}: {}", prompt["text"]);
            assert!(ids.len() == 64 || answer["finish_reason"] == "stop");
        }
    }
}

#[test]
fn json_has_the_keys_of_the_interface() {
    let model = llama();
    let mut arguments = raw(model.to_str().unwrap(), "Once upon a time", "4");
    arguments.extend(["--output", "json"]);
    let answer = Home::new().run(&arguments).ends_with(0).json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&answer), ["text", "token_ids", "finish_reason", "usage", "timings"]);
    let usage = ["prompt_tokens", "cached_tokens", "completion_tokens", "drafted_tokens", "accepted_tokens"];
    assert_eq!(keys(&answer["usage"]), usage);
    assert_eq!(keys(&answer["timings"]), ["load_s", "prefill_tps", "decode_tps", "ttft_s"]);
    assert_eq!(answer["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(answer["token_ids"].as_array().unwrap().len(), 4);
}

#[test]
fn every_line_of_stream_json_is_an_event() {
    let model = llama();
    let mut arguments = raw(model.to_str().unwrap(), "Once", "3");
    arguments.extend(["--output", "stream-json"]);
    let ran = Home::new().run(&arguments).ends_with(0);
    let events: Vec<Value> = ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| **name == "token").count(), 3, "{names:?}");
    assert!(names.contains(&"prefill"));
    assert_eq!(names.last(), Some(&"done"));
    let text: String = events.iter().filter(|e| e["event"] != "done").filter_map(|e| e["text"].as_str()).collect();
    let last = events.last().unwrap();
    assert_eq!(last["text"], text);
    assert_eq!(last["token_ids"].as_array().unwrap().len(), 3);
}

#[test]
fn text_is_the_same_streamed_or_not_mapped_or_not() {
    let model = llama();
    let model = model.to_str().unwrap();
    let home = Home::new();
    let plain = home.run(&raw(model, "Once", "8")).ends_with(0);
    assert!(plain.err.is_empty(), "a quiet run says nothing: {}", plain.err);
    for more in ["--no-stream", "--no-mmap", "--ephemeral"] {
        let mut arguments = raw(model, "Once", "8");
        arguments.push(more);
        assert_eq!(home.run(&arguments).ends_with(0).out, plain.out, "{more}");
    }
}

#[test]
fn stdin_is_the_prompt_or_is_attached() {
    let model = llama();
    let model = model.to_str().unwrap();
    let home = Home::new();
    let base = ["--model", model, "--temperature", "0", "-n", "2", "--output", "json", "--template", "chatml"];
    let run = |more: &[&str], stdin: &[u8]| home.run_with(&[&base[..], more].concat(), Some(stdin));
    let tokens = |ran: crate::support::Ran| ran.ends_with(0).json()["usage"]["prompt_tokens"].as_u64().unwrap();
    let alone = tokens(run(&[], b"Once upon a time\n"));
    assert_eq!(tokens(run(&["-p", "Once upon a time"], b"")), alone);
    assert_eq!(tokens(run(&["-p", "-"], b"Once upon a time")), alone);
    assert!(tokens(run(&["-p", "Once upon a time"], b"an attachment")) > alone);
    assert!(run(&[], b" \n").ends_with(2).err.contains("empty"));
    assert!(run(&[], b"\xff\xfe").ends_with(2).err.contains("stdin"));
}

#[test]
fn a_prompt_that_does_not_fit_is_refused() {
    let model = llama();
    let mut arguments = raw(model.to_str().unwrap(), "Once upon a time, there was a little girl named Lily.", "64");
    arguments.extend(["--ctx", "16"]);
    let ran = Home::new().run(&arguments).ends_with(6);
    assert!(ran.err.contains("16") && ran.out.is_empty(), "{}", ran.err);
}

#[test]
fn a_model_without_template_says_so() {
    let home = Home::new();
    let mut bytes = std::fs::read(llama()).unwrap();
    let key = b"tokenizer.chat_template";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at + key.len() - 1] = b'X';
    std::fs::write(home.path().join("m.gguf"), bytes).unwrap();
    home.run(&["--model", "m.gguf", "-p", "Hi", "--raw", "-n", "1"]).ends_with(0);
    home.run(&["--model", "m.gguf", "-p", "Hi", "--template", "chatml", "-n", "1"]).ends_with(0);
    // Plain continuation, aloud.
    let plain = ["--model", "m.gguf", "-p", "Hi", "-n", "4", "--temperature", "0"];
    let ran = home.run(&plain).ends_with(0);
    assert!(ran.err.contains("--template") && ran.err.contains("chatml"), "{}", ran.err);
    assert_eq!(ran.out, home.run(&[&plain[..], &["--raw"]].concat()).ends_with(0).out);
}

#[test]
fn control_characters_of_a_model_do_not_reach_the_output() {
    let home = Home::new();
    let mut bytes = std::fs::read(llama()).unwrap();
    // Pieces of the vocabulary, of their own length: every lower-case letter becomes a control character.
    let from = bytes.windows(21).position(|window| window == b"tokenizer.ggml.tokens").unwrap();
    let to = bytes.windows(26).position(|window| window.starts_with(b"tokenizer.ggml.token_type")).unwrap();
    for byte in bytes[from + 60..to.max(from + 60)].iter_mut().filter(|byte| byte.is_ascii_lowercase()) {
        *byte = if *byte & 1 == 0 { 0x1b } else { 0x07 };
    }
    std::fs::write(home.path().join("m.gguf"), bytes).unwrap();
    let base = ["--model", "m.gguf", "-p", "Hi", "--raw", "-n", "32", "--temperature", "5", "--seed", "1"];
    let out = |more: &[&str]| String::from_utf8(home.run(&[&base[..], more].concat()).ends_with(0).out).unwrap();
    let controls = |text: &str| text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    let (shown, json) = (out(&[]), out(&["--output", "json"]));
    assert!(!controls(&shown), "{shown:?}");
    assert!(!controls(&json), "{json:?}");
    let exact: serde_json::Value = serde_json::from_str(&json).unwrap();
    let (exact, passed) = (exact["text"].as_str().unwrap(), out(&["--control-characters", "pass"]));
    assert!(controls(exact), "the test's vocabulary has no control characters: {exact:?}");
    assert_eq!(passed.trim_end_matches('\n'), exact.trim_end_matches('\n'));
}

#[test]
fn the_config_of_the_requirements_falls_back_aloud() {
    let model = llama();
    let home = Home::new();
    let config = "[model]\npath = \"MODEL\"\nformat = \"gguf\"\n[backend]\ndefault = \"metal\"\nfallback = [\"cpu\"]\n";
    home.file(".rustorch/config.toml", &config.replace("MODEL", model.to_str().unwrap()));
    let ran = home.run(&["-p", "Once", "--raw", "-n", "2", "--output", "json"]).ends_with(0);
    assert!(ran.err.contains("metal") && ran.err.contains("cpu") && ran.err.lines().count() == 1, "{}", ran.err);
    home.run(&["-p", "Once", "--raw", "-n", "2", "--backend", "metal"]).ends_with(4);
    home.run(&["-p", "Once", "--raw", "-n", "2", "--backend", "metal", "--allow-fallback"]).ends_with(0);
}

#[test]
fn a_seed_repeats_an_answer_and_stop_ends_it() {
    let model = llama();
    let model = model.to_str().unwrap();
    let home = Home::new();
    let run = |more: &[&str]| {
        let base = ["--model", model, "-p", "Once", "--raw", "-n", "16", "--output", "json", "--temperature", "1.5"];
        home.run(&[&base[..], more].concat()).ends_with(0).json()
    };
    let first = run(&["--seed", "7"]);
    assert_eq!(run(&["--seed", "7"])["token_ids"], first["token_ids"]);
    assert_ne!(run(&["--seed", "8"])["token_ids"], first["token_ids"]);
    let text = first["text"].as_str().unwrap();
    let stop: String = text.chars().skip(text.chars().count() / 2).take(2).collect();
    let stopped = run(&["--seed", "7", "--stop", &stop]);
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"].as_str().unwrap(), text.split(&stop).next().unwrap());
}

#[test]
fn histories_are_continued_and_foreign_files_kept() {
    let model = llama();
    let model = model.to_str().unwrap();
    let home = Home::new();
    let base = ["--model", model, "--template", "chatml", "-n", "3", "--output", "json", "--save-history", "chat.json"];
    let first = home.run(&[&base[..], &["-p", "Hello"]].concat()).ends_with(0).json();
    let again = home.run(&[&base[..], &["-p", "More", "--load-history", "chat.json"]].concat()).ends_with(0).json();
    assert!(again["usage"]["prompt_tokens"].as_u64() > first["usage"]["prompt_tokens"].as_u64());
    assert_eq!(json(&home.path().join("chat.json"))["messages"].as_array().unwrap().len(), 4);
    home.file("chat.json", "my own notes");
    home.run(&[&base[..], &["-p", "x"]].concat()).ends_with(7);
    assert_eq!(std::fs::read_to_string(home.path().join("chat.json")).unwrap(), "my own notes");
    home.run(&[&base[..], &["-p", "x", "--force"]].concat()).ends_with(0);
    home.run(&[&base[..], &["-p", "x", "--load-history", "nowhere.json"]].concat()).ends_with(7);
}

#[test]
fn the_log_has_no_prompts_and_ephemeral_writes_nothing() {
    let model = llama();
    let model = model.to_str().unwrap();
    let home = Home::new();
    home.run(&["--model", model, "-p", "Zebra", "--raw", "-n", "1", "--ephemeral"]).ends_with(0);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was written");
    home.run(&["--model", model, "-p", "Zebra", "--raw", "-n", "1", "--log-level", "trace"]).ends_with(0);
    let log = std::fs::read_to_string(home.path().join(".rustorch/logs/cli.log")).unwrap();
    assert!(log.contains("model loaded") && !log.contains("Zebra"), "{log}");
    let ran = home.run(&["--model", model, "-p", "x", "--raw", "-n", "1", "--log-file", "."]).ends_with(0);
    assert!(ran.err.contains("warning:"), "{}", ran.err);
}
