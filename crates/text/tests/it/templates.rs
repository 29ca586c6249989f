//! Every template of the shared fixtures, byte for byte as the reference renderer rendered it.

use serde_json::Value;
use text::{ChatTemplate, RenderInput};

use crate::fixtures;

fn input(file: &Value, case: &Value) -> RenderInput {
    let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
    RenderInput {
        messages: case["messages"].as_array().unwrap().clone(),
        tools: case.get("tools").and_then(Value::as_array).cloned(),
        vars: case.get("vars").and_then(Value::as_object).cloned().unwrap_or_default(),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        bos_token: text("bos_token"),
        eos_token: text("eos_token"),
        now: Some(file["now"].as_str().unwrap().parse().unwrap()),
    }
}

#[test]
fn every_case_renders_as_the_reference_renders_it() {
    let Some(folder) = fixtures::find("templates") else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut passed, mut failed) = (0, Vec::new());
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let file = fixtures::json(path);
        let name = file["name"].as_str().unwrap();
        let template = match ChatTemplate::from_source(file["template"].as_str().unwrap()) {
            Ok(template) => template,
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        for case in file["cases"].as_array().unwrap() {
            let result = template.render(&input(&file, case));
            let wrong = match (&result, case["expected"].as_str()) {
                (Ok(text), Some(expected)) if text == expected => None,
                (Ok(text), Some(expected)) => {
                    let same = text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
                    let tail = |t: &str| {
                        String::from_utf8_lossy(&t.as_bytes()[same.saturating_sub(20)..])
                            .chars()
                            .take(120)
                            .collect::<String>()
                    };
                    Some(format!("at byte {same}: got {:?}, expected {:?}", tail(text), tail(expected)))
                }
                (Err(error), Some(_)) => Some(error.to_string()),
                (Ok(text), None) => Some(format!(
                    "{} where the reference fails: {}",
                    text.chars().take(60).collect::<String>(),
                    case["error"]
                )),
                (Err(_), None) => None,
            };
            match wrong {
                None => passed += 1,
                Some(wrong) => failed.push(format!("{name} / {}: {wrong}", case["name"])),
            }
        }
    }
    println!("{passed} template cases agree, {} do not", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(passed > 0);
}
