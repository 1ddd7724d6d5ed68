//! Arithmetic on sizes that a program does while it runs, beside the evaluator.

use etx::ir::DType;
use etx::ir::eval::{self, Evaluator};
use etx::ir::graph::{Arg, Type, ValueId};
use etx::ir::infer::infer;
use etx::ir::op::OpId;
use etx::ir::text;
use etx::runtime::{Runtime, Tensor};

use crate::support::Folder;

const ROWS: &str = "etir 1
method \"forward\" functional {
  symbol s0 [2..20]
  input %x : f32[s0, 3] = user
  %n : int(s0) = aten.sym_size.int(%x, 0)
  return %n
}
";

/// What Python can make of a size `n`: each line a name, an operator, and operands that are names or numbers.
const MADE: &str = "
up       torch.sym_max n 8
down     torch.sym_min n 5
less     _operator.lt n 7
most     _operator.le n 7
more     _operator.gt n 7
least    _operator.ge n 9
same     _operator.eq n 12
other    _operator.ne n 12
not      torch.sym_not less
both     _operator.and_ more other
either   _operator.or_ less same
choice   torch.sym_ite more n 3
chosen   torch.sym_ite both up down
of_not   torch.sym_ite not down up
of_any   torch.sym_ite either 1 n
of_least torch.sym_ite least n down
of_most  torch.sym_ite most n down
third    _operator.floordiv n 3
rest     _operator.mod third 2
under    _operator.neg n
upwards  _operator.floordiv under 4
square   _operator.pow n 2
cube     _operator.pow n 3
quarter  _operator.truediv n 4
whole    torch.sym_int quarter
ceiling  executorch_prim.ceil.Scalar quarter
nearest  executorch_prim.round.Scalar quarter
tenths   _operator.mul quarter 0.7
cut      math.trunc tenths
negative _operator.mul tenths -1.0
zeroward torch.sym_int negative
root     torch._sym_sqrt n
floor    torch.sym_int root
power    _operator.pow n -0.5
mixed    _operator.add root tenths
gap      _operator.sub up down
largest  torch.sym_max quarter root
";

#[test]
fn numbers_made_of_sizes_are_what_python_makes_of_them() {
    let folder = Folder::new();
    let mut program = text::parse(ROWS, &mut text::NoFiles).unwrap();
    let method = &mut program.methods[0];
    let graph = &mut method.graph;
    let n = graph.outputs()[0].as_value().unwrap();
    let mut names: Vec<(&str, ValueId)> = vec![("n", n)];
    for line in MADE.lines().filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let operand = |word: &&str| match names.iter().find(|(name, _)| name == word) {
            Some((_, v)) => Arg::Value(*v),
            None => word.parse::<i64>().map_or_else(|_| Arg::Float(word.parse().unwrap()), Arg::Int),
        };
        let (op, operands) = (OpId::lookup(words[1]).unwrap(), words[2..].iter().map(operand).collect::<Vec<_>>());
        let types = infer(graph, &method.ranges, op, &operands).unwrap();
        let node = graph.append(op, operands, words[0], types.into_iter().map(|t| (words[0], t)).collect(), None);
        names.push((words[0], graph.node(node).outputs[0]));
    }
    // As tensors, so that they leave the program; a condition is there for what chooses by it.
    let mut outputs = Vec::new();
    for (name, v) in names {
        let dtype = match graph.ty(v) {
            Type::Int(_) => DType::Int64,
            Type::Float(_) => DType::Float32,
            _ => continue,
        };
        let (op, args) =
            (OpId::lookup("aten.scalar_tensor.default").unwrap(), vec![v.into(), Arg::DType(dtype), Arg::None, Arg::None, Arg::None]);
        let types = infer(graph, &method.ranges, op, &args).unwrap();
        let node = graph.append(op, args, name, types.into_iter().map(|t| (name, t)).collect(), None);
        outputs.push((name, graph.node(node).outputs[0]));
    }
    graph.set_outputs(outputs.iter().map(|(_, v)| (*v).into()).collect());
    method.outputs = vec![etx::ir::program::OutputKind::User; outputs.len()];
    let unlowered = program.clone();
    etx::Lowering::mlx().run(program).unwrap().write(folder.path("a.pte")).unwrap();
    let mut forward = Runtime::open(folder.path("a.pte")).unwrap().load_method("forward").unwrap();
    let mut evaluator = Evaluator::new(&unlowered, &unlowered.methods[0]);
    for rows in 2..=20 {
        let found = forward.execute(&[Tensor::zeros(DType::Float32, &[rows, 3]).unwrap().into()]).unwrap();
        let x = eval::Tensor::new(DType::Float32, &[rows, 3], vec![0; rows * 12]).unwrap();
        let expected = evaluator.call(&[eval::Value::Tensor(x)]).unwrap();
        for (((name, _), found), expected) in outputs.iter().zip(&found).zip(&expected) {
            let (found, eval::Value::Tensor(expected)) = (found.as_tensor().unwrap(), expected) else { panic!("{name} is no tensor") };
            let bytes = expected.bytes();
            match found.dtype() {
                DType::Float32 => {
                    let (found, expected) = (found.item::<f32>().unwrap(), f32::from_le_bytes(bytes.try_into().unwrap()));
                    assert!((found - expected).abs() <= 2e-6 * expected.abs(), "{name} of {rows}: {found} for {expected}");
                }
                _ => assert_eq!(found.item::<i64>().unwrap(), i64::from_le_bytes(bytes.try_into().unwrap()), "{name} of {rows}"),
            }
        }
    }
}
