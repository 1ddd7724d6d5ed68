#![allow(missing_docs, reason = "a program without an interface")]
#![cfg_attr(fuzzing, no_main)]

etx_fuzz::fuzz!(pt2);
