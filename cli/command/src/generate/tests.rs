//! Small programs in every form that exporters give language models. The token after `t` at position `p` is `t + p + 1`
//! in all of them, if tokens, positions and state were passed on right.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use etx::emit::{self, Constant, ConstantMethod, Delegate, DelegateOutput, Input, Package, TensorSpec, Value as V};
use etx::mlx::{BACKEND, FloatOrVid, Instr, IntOrVid, NamedSlot, Program, Slot, TensorMeta, Tid, Vid};
use etx::serializer::{mlx, pte};

use super::*;

const VOCABULARY: u64 = 256;

/// Where a program knows from where its first token stands.
#[derive(Clone, Copy, PartialEq)]
enum Base {
    /// It is the first of the text.
    Zero,
    /// A tensor with the position of each token.
    Each,
    /// A tensor with the position of the first.
    First,
    /// An integer.
    FirstInt,
    /// It counts the tokens it was fed, in the buffer of this name.
    Count(&'static str),
}

#[derive(Clone, Copy)]
struct Toy {
    name: &'static str,
    base: Base,
    most: u64,
    dynamic: bool,
    /// Logits of the last token only.
    last: bool,
    /// Takes embeddings: the token, twice.
    embedded: bool,
}

const TOY: Toy = Toy { name: "forward", base: Base::Each, most: 4, dynamic: true, last: false, embedded: false };

/// Tensors of a program in the order of their slots: inputs, outputs, buffers, then temps as they are asked for.
struct Builder {
    next: u32,
    chain: Vec<Instr>,
}

impl Builder {
    fn temp(&mut self, make: impl FnOnce(Tid) -> Instr) -> Tid {
        let out = Tid(self.next);
        self.next += 1;
        self.chain.push(make(out));
        out
    }
}

fn spec(toy: &Toy, dtype: DType, sizes: &[u64]) -> TensorSpec {
    if toy.dynamic { TensorSpec::up_to(dtype, sizes) } else { TensorSpec::fixed(dtype, sizes) }
}

fn method(toy: &Toy) -> emit::Method {
    let mut inputs = vec![Input::Tensor(match toy.embedded {
        true => spec(toy, DType::Float32, &[1, toy.most, 2]),
        false => spec(toy, DType::Int64, &[1, toy.most]),
    })];
    let mut input_map = vec![Slot::Tensor(Tid(0))];
    match toy.base {
        Base::Each => inputs.push(Input::Tensor(spec(toy, DType::Int64, &[toy.most]))),
        Base::First => inputs.push(Input::Tensor(TensorSpec::fixed(DType::Int64, [1]))),
        Base::FirstInt => inputs.push(Input::Int(0)),
        Base::Zero | Base::Count(_) => {}
    }
    let counts = u32::from(matches!(toy.base, Base::Count(_)));
    let tensors = 1 + u32::from(matches!(toy.base, Base::Each | Base::First));
    let (out, count) = (Tid(tensors), Tid(tensors + 1));
    let mut b = Builder { next: tensors + 1 + counts, chain: vec![Instr::SymSize { a: Tid(0), dim: 1, out: Vid(0) }] };

    let int = IntOrVid::Int;
    let tokens = if toy.embedded {
        let first = b.temp(|out| Instr::Slice { x: Tid(0), out, axis: int(2), start: int(0), stop: int(1), step: 1 });
        b.temp(|out| Instr::AsType { x: first, out, scalar_type: DType::Int64 })
    } else {
        b.temp(|out| Instr::ExpandDims { x: Tid(0), out, axis: -1 })
    };
    // What each token adds to itself: its place in this call, and where the call begins.
    let length = IntOrVid::Vid(Vid(0));
    let place =
        b.temp(|out| Instr::ARange { out, start: int(1), stop: IntOrVid::Vid(Vid(1)), step: int(1), scalar_type: Some(DType::Int64) });
    let ahead = b.chain.len() - 1;
    b.chain.insert(ahead, Instr::AddInt { a: length, b: int(1), out: Vid(1) });
    let steps = match toy.base {
        Base::Zero => place,
        Base::Each => {
            let one = b.temp(|out| Instr::Full { out, shape: vec![int(1)], v: FloatOrVid::Float(1.0), scalar_type: DType::Int64 });
            b.temp(|out| Instr::Add { a: Tid(1), b: one, out })
        }
        Base::First => b.temp(|out| Instr::Add { a: place, b: Tid(1), out }),
        Base::FirstInt => {
            input_map.push(Slot::Int(Vid(2)));
            let start = b.temp(|out| Instr::Full { out, shape: vec![int(1)], v: FloatOrVid::Vid(Vid(2)), scalar_type: DType::Int64 });
            b.temp(|out| Instr::Add { a: place, b: start, out })
        }
        Base::Count(_) => {
            let steps = b.temp(|out| Instr::Add { a: place, b: count, out });
            let more = b.temp(|out| Instr::Full { out, shape: vec![int(1)], v: FloatOrVid::Vid(Vid(0)), scalar_type: DType::Int64 });
            let sum = b.temp(|out| Instr::Add { a: count, b: more, out });
            b.chain.push(Instr::IdCopy { x: sum, out: count });
            steps
        }
    };
    if tensors == 2 {
        input_map.push(Slot::Tensor(Tid(1)));
    }
    let steps = b.temp(|out| Instr::ExpandDims { x: steps, out, axis: -1 });
    let next = b.temp(|out| Instr::Add { a: tokens, b: steps, out });
    let all =
        b.temp(|out| Instr::ARange { out, start: int(0), stop: int(VOCABULARY as i64), step: int(1), scalar_type: Some(DType::Int64) });
    let far = b.temp(|out| Instr::Subtract { a: all, b: next, out });
    let far = b.temp(|out| Instr::AsType { x: far, out, scalar_type: DType::Float32 });
    let far = b.temp(|out| Instr::Square { x: far, out });
    let mut logits = b.temp(|out| Instr::Neg { x: far, out });
    if toy.last {
        logits = b.temp(|out| Instr::Slice { x: logits, out, axis: int(1), start: int(-1), stop: length, step: 1 });
    }
    b.chain.push(Instr::IdCopy { x: logits, out });

    let meta = |dtype, shape: &[u32]| TensorMeta {
        dtype,
        shape: shape
            .iter()
            .map(|&n| if n == 0 { etx::mlx::ShapeDim::Dynamic { min: 0, max: None } } else { etx::mlx::ShapeDim::Static(n) })
            .collect(),
        dim_order: None,
    };
    let mut metas = vec![if toy.embedded { meta(DType::Float32, &[1, 0, 2]) } else { meta(DType::Int64, &[1, 0]) }];
    if tensors == 2 {
        metas.push(meta(DType::Int64, &[0]));
    }
    metas.push(meta(DType::Float32, &[1, 0, VOCABULARY as u32]));
    metas.extend((0..counts).map(|_| meta(DType::Int64, &[1])));
    let program = Program {
        num_inputs: tensors,
        num_outputs: 1,
        num_mutable_buffers: counts,
        num_temps: b.next - tensors - 1 - counts,
        num_values: 3,
        chains: vec![b.chain],
        tensor_meta: metas,
        output_map: vec![Slot::Tensor(out)],
        mutable_buffer_map: if counts == 1 { vec![Slot::Tensor(count)] } else { Vec::new() },
        named_slots: match toy.base {
            Base::Count(name) => vec![NamedSlot { name: name.to_owned(), slot: Slot::Tensor(count) }],
            _ => Vec::new(),
        },
        input_map,
        ..Program::default()
    };
    let rows = if toy.last { 1 } else { toy.most };
    finish(toy.name, program, inputs, spec(toy, DType::Float32, &[1, rows, VOCABULARY]))
}

fn finish(name: &str, program: Program, inputs: Vec<Input>, output: TensorSpec) -> emit::Method {
    let delegate = Delegate {
        backend: BACKEND.into(),
        payload: mlx::encode(&program).unwrap(),
        inputs: (0..inputs.len()).map(V::Input).collect(),
        outputs: vec![DelegateOutput::Tensor(output)],
        ..Delegate::default()
    };
    emit::Method {
        name: name.into(),
        inputs,
        delegates: vec![delegate],
        outputs: vec![V::Result { delegate: 0, output: 0 }],
        ..emit::Method::default()
    }
}

/// From tokens to embeddings `[token, token]`.
fn embedding() -> emit::Method {
    let toy = Toy { most: 8, ..TOY };
    let (x, out, column, pair) = (Tid(0), Tid(1), Tid(2), Tid(3));
    let dynamic = |dtype, tail: &[u32]| TensorMeta {
        dtype,
        shape: [etx::mlx::ShapeDim::Static(1), etx::mlx::ShapeDim::Dynamic { min: 0, max: None }]
            .into_iter()
            .chain(tail.iter().map(|&n| etx::mlx::ShapeDim::Static(n)))
            .collect(),
        dim_order: None,
    };
    let program = Program {
        num_inputs: 1,
        num_outputs: 1,
        num_temps: 2,
        chains: vec![vec![
            Instr::ExpandDims { x, out: column, axis: -1 },
            Instr::Concatenate { tensors: vec![column, column], out: pair, axis: -1 },
            Instr::AsType { x: pair, out, scalar_type: DType::Float32 },
        ]],
        tensor_meta: vec![dynamic(DType::Int64, &[]), dynamic(DType::Float32, &[2])],
        input_map: vec![Slot::Tensor(x)],
        output_map: vec![Slot::Tensor(out)],
        ..Program::default()
    };
    let inputs = vec![Input::Tensor(spec(&toy, DType::Int64, &[1, 8]))];
    finish("token_embedding", program, inputs, spec(&toy, DType::Float32, &[1, 8, 2]))
}

/// A file in the temporary directory that goes away with the value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file(methods: Vec<emit::Method>, constants: &[(&str, Constant)]) -> (Runtime, Scratch) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = std::env::temp_dir().join(format!("etx-generate-{}-{}.pte", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let constant = |(name, value): &(&str, Constant)| ConstantMethod { name: (*name).into(), value: value.clone() };
    let constant_methods = constants.iter().map(constant).collect();
    pte::write(&emit::emit(Package { methods, constant_methods, ..Package::default() }).unwrap(), &path).unwrap();
    (Runtime::open(&path).unwrap(), Scratch(path))
}

fn loaded(toys: &[Toy], constants: &[(&str, Constant)]) -> Result<LanguageModel, Error> {
    let (runtime, _file) = file(toys.iter().map(method).collect(), constants);
    LanguageModel::new(&runtime)
}

fn generate(model: &mut LanguageModel, prompt: &[u32], max_tokens: usize) -> Result<Outcome, Error> {
    let mut sampler = Sampler::new(Sampling::default())?;
    model.generate(prompt, &Options { max_tokens, stop_at_eos: true }, &mut sampler, |_| ControlFlow::Continue(()))
}

const PROMPT: [u32; 6] = [10, 20, 30, 40, 50, 60];
/// 60 at 5, then each at the next.
const ANSWER: [u32; 4] = [66, 73, 81, 90];

#[track_caller]
fn answers(toys: &[Toy], constants: &[(&str, Constant)]) {
    let mut model = loaded(toys, constants).unwrap();
    let done = generate(&mut model, &PROMPT, 4).unwrap();
    assert_eq!((&done.tokens[..], done.stop), (&ANSWER[..], Stop::Limit));
    assert_eq!((done.prefill.tokens, done.decode.tokens, model.position()), (6, 3, 9));
    model.reset().unwrap();
    assert_eq!(model.position(), 0);
    assert_eq!(generate(&mut model, &PROMPT, 1).unwrap().tokens, ANSWER[..1]);
    // A text may go on where it stopped.
    assert_eq!(generate(&mut model, &ANSWER[..1], 3).unwrap().tokens, ANSWER[1..]);
}

#[test]
fn positions_are_said_as_the_program_wants_them() {
    let cached = ("use_kv_cache", Constant::Bool(true));
    for base in [Base::Each, Base::First, Base::FirstInt] {
        for last in [false, true] {
            answers(&[Toy { base, last, ..TOY }], std::slice::from_ref(&cached));
        }
    }
}

#[test]
fn state_of_the_program_means_that_tokens_are_fed_once() {
    answers(&[Toy { base: Base::Count("count"), ..TOY }], &[]);
    // Of a smaller piece than the program could take.
    answers(&[Toy { base: Base::Count("count"), ..TOY }], &[("get_prefill_chunk_size", Constant::Int(1))]);
}

#[test]
fn without_state_all_tokens_are_fed_every_time() {
    for base in [Base::Zero, Base::Each] {
        answers(&[Toy { base, most: 16, ..TOY }], &[]);
        answers(&[Toy { base, most: 16, dynamic: false, ..TOY }], &[]);
    }
    let mut short = loaded(&[Toy { base: Base::Zero, most: 8, ..TOY }], &[]).unwrap();
    let done = generate(&mut short, &PROMPT, 10).unwrap();
    assert_eq!((&done.tokens[..], done.stop), (&ANSWER[..3], Stop::Context));
}

#[test]
fn a_fixed_number_of_tokens_is_filled_up() {
    let fixed = Toy { dynamic: false, ..TOY };
    let constants = [("use_kv_cache", Constant::Bool(true)), ("get_max_context_len", Constant::Int(12))];
    answers(&[fixed], &constants);
    answers(&[Toy { most: 1, ..fixed }], &constants);
    // Four more do not fit at position 9.
    let mut model = loaded(&[fixed], &constants).unwrap();
    let error = generate(&mut model, &PROMPT, 5).unwrap_err().to_string();
    assert!(error.contains("takes 4 tokens at once, and only 3 fit after the first 9"), "{error}");
    let mut model = loaded(&[Toy { last: true, ..fixed }], &constants).unwrap();
    let error = model.feed(&PROMPT).unwrap_err().to_string();
    assert!(error.contains("of which the last 2 only fill up"), "{error}");
}

#[test]
fn prefill_and_decode_share_their_state() {
    let decode = Toy { name: "decode", base: Base::Count("count"), most: 1, dynamic: false, ..TOY };
    for dynamic in [false, true] {
        let prefill = Toy { name: "prefill_forward", most: 4, dynamic, last: true, ..decode };
        answers(&[decode, prefill], &[]);
        let other = Toy { base: Base::Count("number"), ..prefill };
        let error = generate(&mut loaded(&[decode, other], &[]).unwrap(), &PROMPT, 2).unwrap_err().to_string();
        assert!(error.contains("\"prefill_forward\" and \"decode\" have no buffers in common"), "{error}");
    }
}

#[test]
fn embeddings_are_made_by_their_method() {
    let decoder = method(&Toy { name: "text_decoder", embedded: true, ..TOY });
    let cached = [("use_kv_cache", Constant::Bool(true))];
    let (runtime, _file) = file(vec![embedding(), decoder.clone()], &cached);
    assert_eq!(generate(&mut LanguageModel::new(&runtime).unwrap(), &PROMPT, 4).unwrap().tokens, ANSWER);
    assert_eq!(generate(&mut LanguageModel::with_method(&runtime, "text_decoder").unwrap(), &PROMPT, 4).unwrap().tokens, ANSWER);
    let (runtime, _file) = file(vec![decoder], &cached);
    let error = LanguageModel::new(&runtime).err().unwrap().to_string();
    assert!(error.contains("\"text_decoder\": it takes embeddings, and there is no method \"token_embedding\""), "{error}");
}

#[test]
fn what_the_file_says_is_used() {
    let list = |ids: &[i64]| Constant::List(ids.iter().map(|&i| Constant::Int(i)).collect());
    let constants = [
        ("get_max_context_len", Constant::Int(8)),
        ("get_max_seq_len", Constant::Int(4)),
        ("get_vocab_size", Constant::Int(100)),
        ("get_bos_id", Constant::Int(1)),
        ("get_eos_ids", list(&[81, 7])),
    ];
    let toy = Toy { base: Base::Count("count"), ..TOY };
    let mut model = loaded(&[toy], &constants).unwrap();
    let facts = Facts { context: Some(8), chunk: None, vocabulary: Some(100), bos: Some(1), eos: vec![81, 7], cached: None };
    assert_eq!(model.facts(), &facts);
    let done = generate(&mut model, &PROMPT, 9).unwrap();
    assert_eq!((&done.tokens[..], done.stop), (&ANSWER[..3], Stop::Eos));

    for (tokens, expected) in [
        (&[][..], "no tokens to begin with"),
        (&[3, 100], "token 100 (number 1 of those given) is not in the vocabulary of 100"),
        (&[1; 9], "9 tokens do not fit a context of 8"),
    ] {
        model.reset().unwrap();
        let error = model.feed(tokens).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // Nothing that exporters write for "unknown" is taken for a number.
    let unknown = [("get_bos_id", Constant::Int(-1)), ("get_eos_id", Constant::None), ("get_max_seq_len", Constant::Int(0))];
    assert_eq!(loaded(&[toy], &unknown).unwrap().facts(), &Facts::default());
}

#[test]
fn what_is_no_language_model_says_why() {
    let (runtime, _file) = file(vec![embedding()], &[("x", Constant::Int(1))]);
    let error = LanguageModel::new(&runtime).err().unwrap();
    assert!(matches!(error, Error::NoLanguageModel(_)) && error.to_string().contains("no methods that compute"), "{error}");
    let error = LanguageModel::with_method(&runtime, "forward").err().unwrap();
    assert!(matches!(error, Error::Runtime(_)) && error.to_string().contains("forward"), "{error}");
}
