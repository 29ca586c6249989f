//! Command line, settings and their layers, errors and exit codes: everything that needs no answer of a model.

use crate::support::{Home, llama};

#[track_caller]
fn check(arguments: &[&str], code: i32, in_stderr: &[&str]) {
    let ran = Home::new().run(arguments).ends_with(code);
    for part in in_stderr {
        assert!(ran.err.contains(part), "{part:?} is not in {}", ran.err);
    }
    assert!(code == 0 || ran.out.is_empty(), "an error prints nothing on stdout: {}", ran.text());
}

#[test]
fn exit_codes() {
    let model = llama();
    let model = model.to_str().unwrap();
    check(&["--help"], 0, &[]);
    check(&["--version"], 0, &[]);
    check(&["--modle", "x"], 2, &["error:", "--modle", "hint:", "--model"]);
    check(&["--temperature", "nan"], 2, &["--temperature"]);
    check(&["--temperature", "5.5"], 2, &["--temperature"]);
    check(&["--top-p", "0"], 2, &["--top-p"]);
    check(&["--max-tokens", "0"], 2, &["--max-tokens"]);
    check(&["--backend", "gpu"], 2, &["cpu|cuda|metal|opencl|hybrid|hybrid-f32"]);
    check(&["--config", "nowhere.toml"], 2, &["nowhere.toml"]);
    check(&["-p", "hi"], 2, &["no model", "--model"]);
    check(&["--model", "nowhere.gguf", "-p", "hi"], 3, &["nowhere.gguf", "cause:"]);
    check(&["--model", ".", "-p", "hi"], 3, &["directory"]);
    check(&["--model", model, "--model-format", "onnx", "-p", "x"], 3, &["onnx", "gguf"]);
    check(&["--model", model, "--backend", "metal", "-p", "x", "--raw"], 4, &["metal", "cause:", "macOS"]);
    check(&["--model", model, "--backend", "hybrid", "-p", "x", "--raw"], 4, &["hybrid"]);
    check(&["--model", model, "-p", "x", "--template", "none-such"], 2, &["none-such", "chatml"]);
    check(&["--output", "json", "--script", "x", "--model", model], 2, &["json"]);
    check(&["--model", model, "-p", "x", "--ephemeral", "--save-history", "x.json"], 2, &["--ephemeral"]);
    check(&["--model", model, "-p", "x", "--raw", "--system", "x"], 2, &["--raw", "--system"]);
    check(&["--model", model, "-p", "x", "--script", "x"], 2, &["--script", "--prompt"]);
    check(&["logits", "--model", model], 2, &["--tokens"]);
    check(&["bench", "--model", model, "--repeat", "0"], 2, &["--repeat"]);
}

#[test]
fn a_damaged_model_is_refused_with_its_name() {
    let home = Home::new();
    let bytes = std::fs::read(llama()).unwrap();
    for (name, content) in
        [("short.gguf", &bytes[..bytes.len() / 2]), ("text.gguf", b"not a model"), ("empty.gguf", b"")]
    {
        std::fs::write(home.path().join(name), content).unwrap();
        let ran = home.run(&["--model", name, "-p", "x", "--raw"]).ends_with(3);
        assert!(ran.err.contains(name) && ran.err.contains("cause:"), "{}", ran.err);
    }
}

#[test]
fn too_little_memory_is_said_before_loading() {
    let model = llama();
    let base = ["bench", "--model", model.to_str().unwrap(), "--ctx", "16777216", "--parallel", "100000"];
    let ran = Home::new().run(&base).ends_with(5);
    for part in ["(1)", "(2)", "(3)", "q8_0"] {
        assert!(ran.err.contains(part), "{}", ran.err);
    }
}

#[test]
fn help_in_both_languages() {
    for (language, long, short) in [("en", "sampling", "Usage"), ("ja", "モデルを実行する場所", "使い方")]
    {
        let home = Home::new();
        let text = home.run(&["--help", "--language", language]).ends_with(0);
        assert!(text.text().contains("RUSTORCH_GENERATION_TOP_P") && text.text().contains("generation.top_p"));
        assert!(language == "en" || text.text().contains(long));
        let text = home.run(&["-h", "--language", language]).ends_with(0);
        assert!(text.text().contains(short) && text.text().lines().count() <= 24);
        let codes = home.run(&["help", "exit-codes", "--language", language]).ends_with(0);
        assert_eq!(codes.text().lines().count(), 10);
        // Of tools too, whatever else they need.
        for tool in ["convert", "imatrix", "logits", "verify", "inspect"] {
            let text = home.run(&[tool, "--help", "--language", language]).ends_with(0);
            assert!(text.text().contains(short) && text.text().contains(tool), "{}", text.text());
        }
    }
    let japanese = Home::new().env("LANG", "ja_JP.UTF-8").run(&["--nonsense"]).ends_with(2);
    assert!(japanese.err.contains("エラー:") && japanese.err.contains("不明な引数"), "{}", japanese.err);
}

#[test]
fn every_setting_has_flag_variable_key_and_both_texts() {
    let tables = Home::new().run(&["docs-json"]).ends_with(0).json();
    let help = Home::new().run(&["--help", "--language", "en"]).ends_with(0);
    let japanese = Home::new().run(&["--help", "--language", "ja"]).ends_with(0);
    let shown = Home::new().run(&["config", "show"]).ends_with(0);
    let rows = tables["settings"].as_array().unwrap();
    assert!(rows.len() > 30);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap();
        let key = text("key");
        assert_eq!(text("variable"), format!("RUSTORCH_{}", key.replace('.', "_").to_uppercase()));
        for part in [format!("--{}", text("flag")), text("variable").to_owned(), key.to_owned(), text("en").to_owned()]
        {
            assert!(help.text().contains(&part), "{part} is not in the help");
        }
        assert!(japanese.text().contains(text("ja")), "{}", text("ja"));
        assert!(shown.text().contains(&format!("{} = ", key.split('.').nth(1).unwrap())), "{key}");
    }
}

#[test]
fn flag_over_variable_over_file_over_default() {
    let file = "[generation]\ntemperature = 0.1\ntop_k = 11\nmin_p = 0.25\n";
    let home = Home::new().env("RUSTORCH_GENERATION_TEMPERATURE", "0.2").env("RUSTORCH_GENERATION_TOP_K", "12");
    home.file(".rustorch/config.toml", file);
    let ran = home.run(&["config", "show", "--origin", "--temperature", "0.3"]).ends_with(0);
    #[track_caller]
    fn line(text: &str, key: &str, value: &str, origin: &str) {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        assert!(line.contains(&format!("= {value} ")) && line.ends_with(origin), "{line}");
    }
    line(ran.text(), "temperature", "0.3", "--temperature");
    line(ran.text(), "top_k", "12", "RUSTORCH_GENERATION_TOP_K");
    line(ran.text(), "min_p", "0.25", "config.toml:4");
    line(ran.text(), "top_p", "0.9", "default");
}

#[test]
fn config_files_are_checked_and_written() {
    let home = Home::new();
    let bad = home.file("bad.toml", "[generation]\n\ntemprature = 1\n");
    let bad = bad.to_str().unwrap();
    let ran = home.run(&["config", "check", "--config", bad]).ends_with(2);
    assert!(ran.err.contains("line 3") && ran.err.contains("generation.temperature"), "{}", ran.err);
    let ran = home.run(&["config", "check", "--config", bad, "--lenient-config"]).ends_with(0);
    assert!(ran.err.contains("warning:") && ran.err.contains("temprature"), "{}", ran.err);
    home.run(&["config", "init"]).ends_with(0);
    assert!(home.path().join(".rustorch/config.toml").is_file());
    home.run(&["config", "init"]).ends_with(2);
    home.run(&["config", "init", "--replace"]).ends_with(0);
    home.run(&["config", "check"]).ends_with(0);
}

#[test]
fn version_completions_man_and_paths() {
    let home = Home::new();
    let version = home.run(&["--version"]).ends_with(0);
    assert!(version.text().starts_with("rustorch-cli ") && version.text().contains("network code linked: no"));
    let version = home.run(&["--version", "--json"]).ends_with(0).json();
    assert_eq!(version["network"], false);
    assert_eq!(version["backends"], serde_json::json!(["cpu"]));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = home.run(&["completions", shell]).ends_with(0);
        assert!(script.text().contains("temperature") && !script.text().contains("docs-json"), "{shell}");
    }
    home.run(&["completions", "tcl"]).ends_with(2);
    let man = home.run(&["man"]).ends_with(0);
    assert!(man.text().contains("temperature") && man.text().contains("130"));
    let paths = home.run(&["paths"]).ends_with(0);
    assert!(paths.text().contains("config.toml") && paths.text().contains("cli.log"));
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    let ran = Home::new().env("RUSTORCH_GENERATION_TOP_P", "7").run(&["config", "show"]).ends_with(2);
    assert!(ran.err.contains("RUSTORCH_GENERATION_TOP_P") && ran.err.contains('7'), "{}", ran.err);
}

#[test]
fn no_colour_where_none_is_wanted() {
    let home = Home::new();
    let plain = home.run(&["--help"]).ends_with(0);
    assert!(!plain.text().contains('\x1b'), "stdout is no terminal");
    let coloured = home.run(&["config", "show", "--color", "always"]).ends_with(0);
    assert!(coloured.text().contains('\x1b'));
    let ran = home.run(&["--model", "\u{1b}]0;title\u{7}.gguf", "-p", "x"]).ends_with(3);
    assert!(!ran.err.contains('\x1b') && !ran.err.contains('\u{7}'), "{:?}", ran.err);
}
