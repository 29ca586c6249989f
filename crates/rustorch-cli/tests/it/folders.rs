//! Folders that hold a model in several formats: which is opened, what is said, how one is chosen.

use crate::support::{Home, fixture};

/// A home with a folder `m`: the demo model as safetensors, PyTorch and GGUF.
fn home_with_three_formats() -> Option<Home> {
    let home = Home::new();
    let folder = home.path().join("m");
    std::fs::create_dir(&folder).unwrap();
    let whole = fixture("demo/hf/model")?;
    for entry in std::fs::read_dir(whole).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::copy(fixture("demo/pytorch/model/pytorch_model.bin")?, folder.join("pytorch_model.bin")).unwrap();
    std::fs::copy(fixture("demo/gguf-q4_0/model.gguf")?, folder.join("model.gguf")).unwrap();
    Some(home)
}

#[test]
fn the_choice_is_stated_and_can_be_made() {
    let Some(home) = home_with_three_formats() else { return };
    let ask = ["-p", "hello", "--temperature", "0", "--max-tokens", "8", "--language", "en"];
    #[track_caller]
    fn check(home: &Home, arguments: &[&str], code: i32, said: &[&str], not_said: &[&str]) -> String {
        let ran = home.run(arguments).ends_with(code);
        for part in said {
            assert!(ran.err.contains(part), "{part:?} is not in {}", ran.err);
        }
        for part in not_said {
            assert!(!ran.err.contains(part), "{part:?} is in {}", ran.err);
        }
        ran.text().to_owned()
    }
    let with = |more: &[&'static str]| [&["--model", "m"], more, &ask].concat();
    let usual = check(&home, &with(&[]), 0, &["pytorch, gguf: safetensors is used", "--model-format"], &[]);
    let pytorch = check(&home, &with(&["--model-format", "pytorch"]), 0, &[], &["is used"]);
    assert_eq!(pytorch, usual);
    check(&home, &with(&["--model-format", "gguf"]), 0, &[], &["is used"]);
    check(&home, &with(&["--model-format", "onnx"]), 3, &["cause:", "and none as onnx"], &[]);
    check(&home, &with(&["--model-format", "mlx"]), 3, &["is a safetensors model", "hint:"], &[]);
    for format in ["safetensors", "pytorch", "gguf"] {
        let facts = home.run(&["inspect", "--model", "m", "--json", "--model-format", format]).ends_with(0).json();
        assert_eq!(facts["format"], format);
    }
    let convert = |more: &'static [&'static str]| [&["convert", "m", "out.gguf", "--force"], more].concat();
    check(&home, &convert(&[]), 0, &["safetensors is used"], &[]);
    check(&home, &convert(&["--model-format", "pytorch"]), 0, &[], &["is used"]);
    // What was not there at the first use is a change, and not a choice.
    std::fs::create_dir(home.path().join("late")).unwrap();
    for (name, code) in [("model.gguf", 0), ("config.json", 0), ("model.safetensors", 3)] {
        std::fs::copy(home.path().join("m").join(name), home.path().join("late").join(name)).unwrap();
        let ran = home.run(&[&["--model", "late"], &ask[..]].concat()).ends_with(code);
        assert_eq!(ran.err.contains("not what it was"), code == 3, "{}", ran.err);
    }
    check(&home, &[&["--model", "late", "--model-format", "gguf"], &ask[..]].concat(), 0, &[], &["not what it was"]);
    let japanese = home.run(&["inspect", "--model", "m", "--language", "ja"]).ends_with(0);
    assert!(japanese.err.contains("safetensors を使います"), "{}", japanese.err);
}
