//! The model that is part of the program: every way of naming a model takes it, and no file is needed.

use crate::support::Home;

#[test]
fn it_answers_without_any_file() {
    let home = Home::new();
    let ran = home.run(&["--model", "demo", "-p", "How do I save this conversation?", "--language", "en"]).ends_with(0);
    assert!(ran.text().contains("/save"), "{}", ran.text());
    assert!(ran.err.contains("demo model inside the program") && ran.err.contains("--model FILE"), "{}", ran.err);
    assert!(!home.path().join(".rustorch/models.lock").exists());
    let ran = home.run(&["--model", "demo", "-p", "保存するには?", "--language", "ja"]).ends_with(0);
    assert!(ran.err.contains("内蔵"), "{}", ran.err);
}

#[test]
fn it_would_rather_be_greedy() {
    let home = Home::new();
    let ask = |more: &[&str]| {
        let all = [&["--model", "demo", "-p", "hello", "--ephemeral", "--max-tokens", "20"], more].concat();
        home.run(&all).ends_with(0).out
    };
    let greedy = ask(&["--temperature", "0"]);
    assert_eq!(ask(&["--seed", "1"]), greedy);
    assert_eq!(ask(&["--seed", "2"]), greedy);
    // What the user says counts more.
    let hot = |seed: &str| ask(&["--temperature", "5", "--top-k", "0", "--top-p", "1", "--seed", seed]);
    assert_ne!(hot("1"), hot("2"));
}

#[test]
fn a_file_of_its_name_is_reached_by_its_path() {
    let home = Home::new();
    home.file("demo", "no model at all");
    home.run(&["inspect", "--model", "demo"]).ends_with(0);
    let refused = home.run(&["inspect", "--model", "./demo"]).ends_with(3);
    assert!(refused.err.contains("not a model"), "{}", refused.err);
    home.file(".rustorch/config.toml", "[model]\npath = \"demo\"\n");
    let facts = home.run(&["inspect", "--json"]).ends_with(0).json();
    assert_eq!(facts["metadata"]["general.name"], "rustorch-demo");
    assert_eq!(facts["files"], serde_json::json!([]));
    home.file(".rustorch/config.toml", "[model]\npath = \"./demo\"\n");
    home.run(&["inspect"]).ends_with(3);
}

#[test]
fn every_tool_takes_it() {
    let home = Home::new();
    let tokens = home.run_with(&["tokenize", "--model", "demo"], Some(b"hello")).ends_with(0).json();
    assert!(tokens.is_array() || tokens.is_object());
    home.file("m.json", r#"[{"role":"user","content":"hi"}]"#);
    let rendered = home.run(&["template", "--model", "demo", "--messages", "m.json"]).ends_with(0);
    assert!(rendered.text().contains("<|im_start|>user"), "{}", rendered.text());
    home.run(&["logits", "--model", "demo", "--tokens", "1,2", "--out", "l.npy"]).ends_with(0);
    home.file("t.txt", &"save the conversation ".repeat(20));
    home.run(&["perplexity", "--model", "demo", "--file", "t.txt"]).ends_with(0);
    home.run(&["convert", "demo", "again.gguf", "--type", "F16"]).ends_with(0);
    home.run(&["convert", "demo", "again.safetensors"]).ends_with(2);
    let answer = |model: &str| home.run(&["-m", model, "-p", "How do I save?", "--no-model-lock"]).ends_with(0).out;
    assert_eq!(answer("again.gguf"), answer("demo"));
    let rows = home.run(&["models", "--json"]).ends_with(0).json();
    assert_eq!((&rows[0]["name"], &rows[0]["fits"]), (&"demo".into(), &true.into()));

    let verified = home.run(&["verify", "demo"]).ends_with(0);
    let line = verified.text().to_owned();
    home.file("SHA256SUMS", &line);
    home.run(&["verify", "demo", "--sums", "SHA256SUMS"]).ends_with(0);
    home.file("SHA256SUMS", &line.replace(['0', '1', '2', '3'], "4"));
    home.run(&["verify", "demo", "--sums", "SHA256SUMS"]).ends_with(3);
    home.run(&["verify", "demo", "--accept"]).ends_with(2);
    let version = home.run(&["--version", "--json"]).ends_with(0).json();
    let sha256 = version["demo_model"]["sha256"].as_str().unwrap();
    assert!(line.starts_with(sha256) && line.contains("rustorch-demo.gguf"), "{line}");
    assert!(version["target"].as_str().unwrap().contains(std::env::consts::ARCH));
}

#[test]
fn without_a_model_it_is_what_the_hint_names() {
    let ran = Home::new().run(&["-p", "hi", "--language", "en"]).ends_with(2);
    assert!(ran.err.contains("--model demo"), "{}", ran.err);
}
