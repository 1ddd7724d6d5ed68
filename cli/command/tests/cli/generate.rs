//! `etx generate` on the bundled Llama.

use std::fs;

use etx::import::pt2;
use etx::ir::DType;
use etx::ir::eval::{self, Evaluator};
use etx::runtime::{Runtime, Tensor};
use serde_json::json;

use crate::support::{Done, Folder, args, example, fixture, json};

/// "Emma was not"
const PROMPT: [i64; 6] = [69, 109, 109, 97, 303, 315];
const IDS: &str = "69,109,109,97,303,315";
/// Tokens there are.
const VOCABULARY: usize = 512;

fn lowered(folder: &Folder, constants: &[&str]) {
    let constants = constants.iter().flat_map(|c| args!["--constant", c]);
    folder.etx(args!["lower", example("model.pt2"), "-o", "a.pte"].into_iter().chain(constants)).good();
}

/// Said nothing but how fast it was.
#[track_caller]
fn said(done: Done) -> String {
    let lines: Vec<&str> = done.stderr.lines().collect();
    assert!(done.status == Some(0) && lines.len() >= 2 && lines.iter().take(2).all(|l| l.ends_with(" tokens/s")), "{done:?}");
    assert!(lines[0].starts_with("prefill: ") && lines[1].starts_with("decode: "), "{done:?}");
    done.stdout
}

/// Greedy decoding by `step`, which takes tokens and their first position and gives the logits of the last.
fn greedy(mut step: impl FnMut(&[i64], i64) -> Vec<f32>, count: usize) -> Vec<i64> {
    let mut logits = step(&PROMPT, 0);
    let mut tokens = Vec::new();
    loop {
        let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        tokens.push(best as i64);
        if tokens.len() == count {
            return tokens;
        }
        logits = step(&[best as i64], (PROMPT.len() + tokens.len() - 1) as i64);
    }
}

fn last(logits: &[f32]) -> Vec<f32> {
    logits[logits.len() - VOCABULARY..].to_vec()
}

#[test]
fn the_tokens_are_those_of_calls_by_hand_and_of_the_program_evaluated() {
    let folder = Folder::new();
    lowered(&folder, &[]);
    let tokens: Vec<i64> = said(folder.etx(["generate", "a.pte", "--ids", IDS, "--max-tokens", "12"]))
        .trim_end()
        .split(',')
        .map(|t| t.parse().unwrap())
        .collect();

    let mut forward = Runtime::open(folder.path("a.pte")).unwrap().load_method("forward").unwrap();
    let positions = |start: i64, n: usize| (start..start + n as i64).collect::<Vec<i64>>();
    let by_hand = greedy(
        |step, start| {
            let at = positions(start, step.len());
            let inputs = [Tensor::from_slice(&[1, step.len()], step).unwrap(), Tensor::from_slice(&[at.len()], &at).unwrap()];
            let outputs = forward.execute(&inputs.map(Into::into)).unwrap();
            last(&outputs[0].as_tensor().unwrap().values::<f32>().unwrap())
        },
        12,
    );
    assert_eq!(tokens, by_hand);

    let program = pt2::load(example("model.pt2")).unwrap();
    let mut evaluator = Evaluator::new(&program, &program.methods[0]);
    let integers = |shape: &[usize], numbers: &[i64]| {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        eval::Value::Tensor(eval::Tensor::new(DType::Int64, shape, bytes).unwrap())
    };
    let evaluated = greedy(
        |step, start| {
            let at = positions(start, step.len());
            let outputs = evaluator.call(&[integers(&[1, step.len()], step), integers(&[at.len()], &at)]).unwrap();
            let eval::Value::Tensor(logits) = &outputs[0] else { panic!("{outputs:?}") };
            last(&logits.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>())
        },
        12,
    );
    assert_eq!(tokens, evaluated);
}

#[test]
fn text_goes_in_and_comes_out() {
    let folder = Folder::new();
    lowered(&folder, &["get_bos_id=10"]);
    let command = |more: &[&str]| {
        let base = args!["generate", "a.pte", "--tokenizer", example("tokenizer.json"), "--max-tokens", "24"];
        folder.etx(base.into_iter().chain(more.iter().map(Into::into)))
    };
    let text = said(command(&["--prompt", "Emma was not"]));
    let whole = json(said_json(command(&["--prompt", "Emma was not", "--format", "json"])));
    assert_eq!(whole["prompt"], json!(PROMPT));
    assert_eq!((&whole["stop"], &whole["prefill"]["tokens"], &whole["decode"]["tokens"]), (&json!("limit"), &json!(6), &json!(23)));
    assert_eq!(text, format!("{}\n", whole["text"].as_str().unwrap()));
    assert_eq!(whole["tokens"].as_array().unwrap().len(), 24);
    // It has read a book: what comes are words with blanks between them.
    let words = whole["text"].as_str().unwrap();
    let of_words = words.chars().filter(|c| c.is_ascii_alphabetic() || " ,.;'\"-".contains(*c)).count();
    assert!(words.split_whitespace().count() >= 8 && of_words + 2 >= words.chars().count(), "{words}");
    assert_eq!(json(said_json(command(&["--ids", IDS, "--threads", "1", "--format", "json"])))["text"], whole["text"]);

    let begun = json(said_json(command(&["--prompt", "Emma was not", "--bos", "--format", "json"])));
    assert_eq!(begun["prompt"], json!([&[10], &PROMPT[..]].concat()));

    // Text to stop at is not shown, nor anything after it.
    let sampled = ["--prompt", "Emma was not", "--temperature", "1.5", "--top-p", "0.9", "--seed", "3"];
    let drawn = said(command(&sampled));
    assert_eq!(drawn, said(command(&sampled)));
    assert_ne!(drawn, text);
    let stop = drawn.char_indices().find(|(_, c)| c.is_ascii_graphic()).map(|(at, c)| (at, c.to_string())).unwrap();
    let cut = said(command(&[&sampled[..], &["--stop", &stop.1]].concat()));
    assert_eq!(cut.trim_end_matches('\n'), &drawn[..stop.0]);
}

/// With `--format json`, rates are part of it.
#[track_caller]
fn said_json(done: Done) -> String {
    done.good()
}

#[test]
fn constants_are_written_shown_and_heeded() {
    let folder = Folder::new();
    lowered(&folder, &["get_max_context_len=9", "get_vocab_size=400", "use_kv_cache=true", "get_eos_ids=[7,250]", "scale=0.5"]);
    let summary = json(folder.etx(["inspect", "a.pte", "--format", "json"]).good());
    let constant = |name: &str| {
        let methods = summary["methods"].as_array().unwrap();
        methods.iter().find(|m| m["name"] == name).map(|m| m["constant"].clone())
    };
    assert_eq!(constant("get_eos_ids"), Some(json!([7, 250])));
    assert_eq!(constant("use_kv_cache"), Some(json!([true])));
    assert_eq!(constant("scale"), Some(json!([0.5])));
    assert_eq!(constant("forward"), Some(json!(null)));
    assert!(folder.etx(["inspect", "a.pte"]).good().contains("constant \"get_eos_ids\": 7, 250\n"));
    assert_eq!(folder.etx(["run", "a.pte", "--method", "get_max_context_len", "--threads", "1"]).good(), "output_0: int 9\n");

    let done = json(folder.etx(["generate", "a.pte", "--ids", IDS, "--format", "json"]).good());
    assert_eq!((&done["stop"], done["tokens"].as_array().unwrap().len()), (&json!("context"), 4));
    // The second token becomes one that ends the text.
    let second = done["tokens"][1].as_u64().unwrap();
    lowered(&folder, &[&format!("get_eos_id={second}")]);
    let command = |more: &[&str]| {
        let base = ["generate", "a.pte", "--ids", IDS, "--format", "json", "--max-tokens", "3"];
        json(folder.etx(base.into_iter().chain(more.iter().copied())).good())
    };
    assert_eq!((&command(&[])["stop"], command(&[])["tokens"].as_array().unwrap().len()), (&json!("eos"), 2));
    assert_eq!(command(&["--ignore-eos"])["stop"], "limit");
}

#[test]
fn the_context_is_told_by_the_caches_where_the_file_does_not_say_it() {
    let folder = Folder::new();
    lowered(&folder, &[]);
    let done = json(folder.etx(["generate", "a.pte", "--ids", IDS, "--max-tokens", "500", "--format", "json"]).good());
    // All of the 128 places are filled, and one more token follows the last.
    assert_eq!((&done["stop"], done["tokens"].as_array().unwrap().len()), (&json!("context"), 128 - 6 + 1));
    let long = vec!["1"; 129].join(",");
    let error = folder.etx(["generate", "a.pte", "--ids", &long]).bad();
    assert!(error.contains("129 tokens do not fit a context of 128"), "{error}");
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = Folder::new();
    lowered(&folder, &["get_max_context_len=9", "get_vocab_size=200"]);
    let bad = |words: &[&str]| folder.etx(["generate", "a.pte"].iter().chain(words)).bad();
    for (words, expected) in [
        (&["--ids", "1,2,200"][..], "token 200 (number 2 of those given) is not in the vocabulary of 200"),
        (&["--ids", "1,2,3,4,5,6,7,8,9,10"], "10 tokens do not fit a context of 9"),
        (&["--ids", "1,2,3", "--context", "2"], "3 tokens do not fit a context of 2"),
        (&["--ids", "1", "--bos"], "get_bos_id"),
        (&["--ids", "1", "--temperature=-1"], "temperature -1"),
        (&["--ids", "1", "--top-p", "2"], "top-p 2"),
        (&["--ids", "1", "--method", "backward"], "backward"),
        (&["--ids", "1", "--tokenizer", "absent.json"], "absent.json"),
        (&["--prompt", "x"], "--tokenizer"),
        (&["--ids", "one"], "one"),
        (&["--ids", "1", "--stop", "x"], "--tokenizer"),
        (&[], "--prompt <TEXT>"),
    ] {
        let error = bad(words);
        assert!(error.contains(expected), "{expected:?} is not in: {error}");
    }
    let help = folder.etx(["generate", "--help"]).good();
    assert!(help.contains("Example:\n  etx generate ") && help.contains("Exit status: 0"), "{help}");
    fs::write(folder.path("t.json"), "{\"model\": 1}").unwrap();
    assert!(bad(&["--tokenizer", "t.json", "--prompt", "x"]).contains("tokenizer: t.json: "));
    let other = folder.etx(args!["generate", fixture("three_methods/reference.pte"), "--ids", "1"]).bad();
    assert!(other.contains("this is no language model that etx knows how to call:\n  \""), "{other}");
    let twice = folder.etx(args!["lower", example("model.pt2"), "-o", "b.pte", "--constant", "a=1", "--constant", "a=2"]).bad();
    assert!(twice.contains("`a`: has the name of method"), "{twice}");
    let taken = folder.etx(args!["lower", example("model.pt2"), "-o", "b.pte", "--constant", "forward=1"]).bad();
    assert!(taken.contains("`forward`: has the name of method"), "{taken}");
    assert_eq!(folder.files(), ["a.pte", "t.json"]);
}
