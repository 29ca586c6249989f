//! The post-processor of a `tokenizer.json`, as far as one text needs it: which tokens stand before and after it.
//!
//! Read as data rather than run by the library: a template may name the text many times over, and a list of templates
//! multiplies that.

use serde_json::Value;

use crate::limits;

/// The ids before and after a text.
type Around = (Vec<u32>, Vec<u32>);

/// The ids that `json` puts before and after a single text.
pub(super) fn around(json: Option<&Value>) -> Result<Around, String> {
    let Some(json) = json else { return Ok(Around::default()) };
    let steps = match json.get("processors").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(json),
    };
    let mut all = Around::default();
    for step in steps {
        let (before, after) = step_around(step)?;
        all.0.splice(0..0, before);
        all.1.extend(after);
        if all.0.len() + all.1.len() > limits::POST_PROCESSOR_TOKENS {
            return Err(format!("it adds more than {} tokens to a text", limits::POST_PROCESSOR_TOKENS));
        }
    }
    Ok(all)
}

fn step_around(step: &Value) -> Result<Around, String> {
    match step.get("type").and_then(Value::as_str) {
        Some("ByteLevel") => Ok(Around::default()),
        Some("BertProcessing" | "RobertaProcessing") => {
            let id = |key: &str| step.get(key)?.get(1)?.as_u64()?.try_into().ok();
            match (id("cls"), id("sep")) {
                (Some(cls), Some(sep)) => Ok((vec![cls], vec![sep])),
                _ => Err("'cls' and 'sep' are not a token and its id".into()),
            }
        }
        Some("TemplateProcessing") => template(step),
        other => Err(format!("unknown type '{}'", other.unwrap_or_default())),
    }
}

fn template(step: &Value) -> Result<Around, String> {
    let pieces = step.get("single").and_then(Value::as_array).ok_or("'single' is not a list")?;
    let (mut before, mut after, mut texts) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        if piece.get("Sequence").is_some() {
            texts += 1;
            continue;
        }
        let name = piece.pointer("/SpecialToken/id").and_then(Value::as_str).ok_or("'single' has an unknown piece")?;
        let special = step.get("special_tokens").and_then(|tokens| tokens.get(name)?.get("ids")?.as_array());
        let ids = special.ok_or_else(|| format!("'special_tokens' has no ids for '{name}'"))?;
        let ids: Option<Vec<u32>> = ids.iter().map(|id| id.as_u64()?.try_into().ok()).collect();
        let ids = ids.ok_or_else(|| format!("'special_tokens' has ids for '{name}' that are no numbers"))?;
        let side = if texts == 0 { &mut before } else { &mut after };
        side.extend(ids);
        if side.len() > limits::POST_PROCESSOR_TOKENS {
            return Err(format!("it adds more than {} tokens to a text", limits::POST_PROCESSOR_TOKENS));
        }
    }
    if texts != 1 {
        return Err(format!("'single' has the text {texts} times"));
    }
    Ok((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_around_a_text_is_read_from_every_kind() {
        let piece = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let ids =
            json!({"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "x": {"ids": [7, 8]}, "bad": {"ids": [-1]}});
        let template =
            |single: Vec<Value>| json!({"type": "TemplateProcessing", "single": single, "special_tokens": ids});
        let bos = template(vec![piece("<s>"), text.clone()]);
        let byte_level = json!({"type": "ByteLevel", "trim_offsets": false});
        let good: [(Value, &[u32], &[u32]); 5] = [
            (byte_level.clone(), &[], &[]),
            (bos.clone(), &[1], &[]),
            (template(vec![piece("<s>"), text.clone(), piece("x")]), &[1], &[7, 8]),
            (json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}), &[2], &[3]),
            (json!({"type": "Sequence", "processors": [byte_level, bos]}), &[1], &[]),
        ];
        for (json, before, after) in good {
            assert_eq!(around(Some(&json)), Ok((before.to_vec(), after.to_vec())), "{json}");
        }
        assert_eq!(around(None), Ok(Around::default()));
        let many = vec![piece("x"); limits::POST_PROCESSOR_TOKENS];
        let bad = [
            (template(vec![text.clone(), text.clone()]), "2 times"),
            (template(vec![piece("<s>")]), "0 times"),
            (template(vec![piece("nonesuch"), text.clone()]), "nonesuch"),
            (template(vec![piece("bad"), text.clone()]), "no numbers"),
            (template([many, vec![text]].concat()), "more than"),
            (json!({"type": "TemplateProcessing"}), "'single'"),
            (json!({"type": "BertProcessing"}), "'cls'"),
            (json!({"type": "X"}), "'X'"),
        ];
        for (json, expected) in bad {
            let error = around(Some(&json)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
