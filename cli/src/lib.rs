//! etx lowers programs that torch.export wrote to ExecuTorch files for Apple's MLX, and runs such files anywhere.
mod load;
pub mod lower;
mod package;

pub use load::{Kind, load, load_into, load_methods};
pub use lower::{Lowered, Lowering};
pub use {etx_ir as ir, etx_partitioner as partitioner, etx_passes as passes, etx_runtime_mlx as runtime, etx_serializer as serializer};
