//! The text form of programs, `.etir`: prints and parses back exactly.
//!
//! [`print()`] gives the same text for the same program, always; [`parse()`] gives the same program for the text
//! ([`difference`] finds nothing), so printing again gives the same text again. This holds for every program that
//! [`verify`](crate::verify::verify) accepts; others print as far as they can be shown.
//!
//! ```
//! use etx_ir::text::{self, NoFiles};
//!
//! let text = r#"etir 1
//!
//! file $model "/home/me/model.py"
//!
//! weight @0 "proj.weight" f32[2, 2] inline 0x0000803f000000000000000000000040
//!
//! method "forward" functional {
//!   symbol s27 [2..128]
//!   input %p_proj_weight : f32[2, 2] = parameter @0
//!   input %x : f32[s27, 2] = user
//!   %linear : f32[s27, 2] = aten.linear.default(%x, %p_proj_weight) at $model:7 in forward of proj
//!   %sum_1 : f32[s27] = aten.sum.dim_IntList(%linear, [-1]) at $model:8 in forward
//!   return %sum_1
//! }
//! "#;
//! let program = text::parse(text, &mut NoFiles)?;
//! assert_eq!(text::print(&program), text);
//! # Ok::<(), etx_ir::error::Error>(())
//! ```
//!
//! # Grammar
//!
//! Blanks, line ends and comments (`#` to the end of the line) may stand between any two tokens and mean nothing.
//! `NAME` is a word of ASCII letters, digits, `_` and `.`, or a string; `STRING` is in double quotes with the escapes
//! `\n \t \r \" \\ \u{…}`.
//!
//! ```text
//! program = "etir" "1" { file | weight | method }
//! file    = "file" "$" NAME STRING                          a source file, and what it is called below
//! weight  = "weight" "@" INT STRING data                    numbered in order from 0
//! data    = DTYPE "[" sizes "]" where
//! where   = "file" STRING "offset" INT                      bytes of a file, path as it was opened
//!         | "inline" "0x" HEX                               all bytes
//!         | "omitted" HEX                                   more than 256 bytes that were in memory: their fingerprint
//!         | "derived" STRING "(" [ data { "," data } ] ")"  made by a recipe from others
//! method  = "method" STRING ( "training" | "functional" ) "{" { header } body
//! header  = "in_spec" STRING | "out_spec" STRING            pytrees
//!         | "guard" STRING                                  what the exporter took for granted
//!         | "symbol" SYMBOL "[" [INT] ".." [INT] "]"        bounds, inclusive
//!         | "input" [ value ] "=" kind
//! kind    = "user" | "literal" STRING arg | "parameter" "@" INT | "buffer" "@" INT [ "nonpersistent" ]
//!         | "constant" "@" INT | "token" | "object" STRING STRING
//! value   = "%" NAME ":" type
//! type    = DTYPE "[" sizes "]" [ "{" strides "}" ]         strides unless row-major
//!         | "int(" EXPR ")" | "float(" EXPR ")" | "bool(" EXPR ")" | "none" | "opaque" STRING
//! body    = { call } "return" [ output { "," output } ] "}"
//! output  = arg [ "as" ( "state" | "input" ) ( "%" NAME | INT ) | "as" "token" ]   new value of which input
//! call    = [ NAME ":" ] [ value { "," value } "=" ] OPERATOR "(" [ [ NAME "=" ] arg { "," … } ] ")" [ source ]
//! source  = "at" ( "$" NAME | STRING ) ":" INT [ "in" NAME ] [ "of" NAME ]          line, function, module
//! arg     = "%" NAME | INT | FLOAT | STRING | "None" | "True" | "False" | "complex(" FLOAT "," FLOAT ")"
//!         | DTYPE | MEMORY_FORMAT | LAYOUT | "device(" STRING ")" | OPERATOR
//!         | "[" [ arg { "," arg } ] "]" | "{" [ STRING ":" arg { "," … } ] "}"
//!         | "graph(" [ value { "," value } ] ")" "{" body
//! ```
//!
//! A call has a name of its own before it where that is not the name of its first result. Arguments stand in the order
//! of the operator's schema: required ones by position, others by name, those that equal the schema's default not at
//! all. What a variadic operator got by name beyond its schema is the dictionary that is its last argument. Floats have
//! a `.` or an exponent, and round-trip exactly. Expressions are as [`crate::sym::Expr`] prints them.
//!
//! # Weights
//!
//! The text describes weights; it does not hold them, but for the smallest. Reading a text opens no file:
//! [`WeightResolver`] decides what to do with the paths in it. Tensors that were not found keep their description, and
//! fail when their bytes are asked for.

mod compare;
mod data;
mod lex;
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use compare::difference;
pub use data::{Files, NoFiles, WeightResolver};
pub use parse::parse;
pub use print::{print, print_graph, print_node, print_type};

use crate::graph::Arg;
use crate::op::Literal;

/// The name that operator schemas have for a memory format or a layout.
fn spelled(literal: &Literal) -> Option<String> {
    Some(literal.to_string()).filter(|name| name != "unknown")
}

/// The memory format or layout of this name.
fn spelling(name: &str) -> Option<Arg> {
    (0..8)
        .flat_map(|n| [Literal::MemoryFormat(n), Literal::Layout(n)])
        .find(|literal| spelled(literal).is_some_and(|s| s == name))
        .map(|literal| Arg::from(&literal))
}
