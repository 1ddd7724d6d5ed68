//! Readers: exported programs and tensors in files, as descriptions. No weight is read.
//!
//! ```
//! use etx_import::pt2;
//!
//! let program = pt2::load("../../examples/llama/model.pt2")?; // mapped
//! etx_ir::verify::verify(&program)?;
//! let method = program.method("forward").ok_or("no such method")?;
//! for (_, node) in method.graph.nodes().take(3) {
//!     println!("{} = {}({} arguments)", node.name, node.op, node.args.len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod pt2;
pub mod safetensors;
