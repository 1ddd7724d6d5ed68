//! Types and arguments: what calls and signatures are made of.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Parser, Scope};
use crate::DType;
use crate::error::Error;
use crate::graph::{Arg, TensorType, Type, ValueId};
use crate::sym::Expr;

impl<'a> Parser<'a, '_> {
    // Types.

    pub(super) fn definition(&mut self) -> Result<(Cow<'a, str>, Type), Error> {
        self.at.expect(b'%')?;
        let name = self.at.name("the name of a value")?;
        self.at.expect(b':')?;
        Ok((name, self.ty()?))
    }

    fn ty(&mut self) -> Result<Type, Error> {
        let start = self.at.place();
        let word = self.at.word();
        match (word, self.at.peek()) {
            ("none", _) => Ok(Type::None),
            ("opaque", _) => Ok(Type::Opaque(self.at.string()?.into())),
            ("int", Some(b'(')) => self.scalar().map(Type::Int),
            ("float", Some(b'(')) => self.scalar().map(Type::Float),
            ("bool", Some(b'(')) => self.scalar().map(Type::Bool),
            (_, Some(b'[')) if DType::from_name(word).is_some() => {
                let dtype = DType::from_name(word).unwrap_or(DType::Float32);
                let shape = self.exprs(b'[', b']')?;
                let strides = if self.at.peek() == Some(b'{') { Some(self.exprs(b'{', b'}')?) } else { None };
                Ok(Type::Tensor(TensorType { dtype, shape, strides }))
            }
            _ => {
                self.at.back(start);
                Err(self.at.expected("a type, such as f32[1, s77], int(u0), none or opaque \"class\""))
            }
        }
    }

    fn scalar(&mut self) -> Result<Expr, Error> {
        self.at.expect(b'(')?;
        let e = self.expr()?;
        self.at.expect(b')')?;
        Ok(e)
    }

    fn exprs(&mut self, open: u8, close: u8) -> Result<Vec<Expr>, Error> {
        self.at.expect(open)?;
        let mut exprs = Vec::new();
        self.items(close, |p| {
            exprs.push(p.expr()?);
            Ok(())
        })?;
        Ok(exprs)
    }

    fn expr(&mut self) -> Result<Expr, Error> {
        let start = self.at.place();
        let text = self.at.expression();
        if let Ok(n) = text.parse() {
            return Ok(Expr::Int(n));
        }
        Expr::parse(text).map_err(|e| self.at.wrong(start, &e))
    }

    // Arguments.

    pub(super) fn value(&mut self, scope: &Scope<'a>) -> Result<ValueId, Error> {
        let start = self.at.place();
        self.at.expect(b'%')?;
        let name = self.at.name("the name of a value")?;
        let v = scope.values.get(&name).copied();
        v.ok_or_else(|| self.at.wrong(start, &format!("%{name} is not defined before this")))
    }

    pub(super) fn arg(&mut self, scope: &Scope<'a>) -> Result<Arg, Error> {
        match self.at.peek() {
            Some(b'%') => self.value(scope).map(Arg::Value),
            Some(b'"') => Ok(Arg::Str(self.at.string()?.into())),
            Some(b'0'..=b'9' | b'-') => self.number(),
            Some(b'[') => self.deeper(|p| {
                p.at.expect(b'[')?;
                let mut items = Vec::new();
                p.items(b']', |p| {
                    items.push(p.arg(scope)?);
                    Ok(())
                })?;
                Ok(Arg::List(items))
            }),
            Some(b'{') => self.deeper(|p| {
                p.at.expect(b'{')?;
                let mut items = Vec::new();
                p.items(b'}', |p| {
                    let key = p.at.string()?;
                    p.at.expect(b':')?;
                    items.push((Arc::from(&*key), p.arg(scope)?));
                    Ok(())
                })?;
                Ok(Arg::Dict(items))
            }),
            _ => self.word_arg(),
        }
    }

    fn number(&mut self) -> Result<Arg, Error> {
        let start = self.at.place();
        let text = self.at.number();
        if let Ok(n) = text.parse() {
            return Ok(Arg::Int(n));
        }
        // What is a number in Rust but not in the text form: `nan` has a notation of its own, an integer must fit 64 bits.
        let float = text.ends_with("inf") || text.contains(['.', 'e', 'E']);
        match text.parse().ok().filter(|x: &f64| float && !x.is_nan()) {
            Some(x) => Ok(Arg::Float(x)),
            None => {
                self.at.back(start);
                Err(self.at.expected("a number of 64 bits"))
            }
        }
    }

    fn float(&mut self) -> Result<f64, Error> {
        let start = self.at.place();
        let arg = if matches!(self.at.peek(), Some(b'0'..=b'9' | b'-')) { self.number()? } else { self.word_arg()? };
        match arg {
            Arg::Float(x) => Ok(x),
            _ => {
                self.at.back(start);
                Err(self.at.expected("a float"))
            }
        }
    }

    fn word_arg(&mut self) -> Result<Arg, Error> {
        let start = self.at.place();
        let word = self.at.word();
        Ok(match word {
            "None" => Arg::None,
            "True" => Arg::Bool(true),
            "False" => Arg::Bool(false),
            "inf" => Arg::Float(f64::INFINITY),
            "nan" if self.at.peek() == Some(b'(') => {
                self.at.expect(b'(')?;
                let x = u64::from_str_radix(self.at.hex()?, 16).map(f64::from_bits).ok().filter(|x| x.is_nan());
                self.at.expect(b')')?;
                Arg::Float(x.ok_or_else(|| self.at.wrong(start, "expected the bits of a nan as `nan(0x…)`"))?)
            }
            "nan" => Arg::Float(f64::NAN),
            "complex" => {
                self.at.expect(b'(')?;
                let re = self.deeper(Self::float)?;
                self.at.expect(b',')?;
                let im = self.deeper(Self::float)?;
                self.at.expect(b')')?;
                Arg::Complex(re, im)
            }
            "device" => {
                self.at.expect(b'(')?;
                let device = self.at.string()?.into();
                self.at.expect(b')')?;
                Arg::Device(device)
            }
            "layout" => Arg::Layout(self.small()?),
            "memory_format" => Arg::MemoryFormat(self.small()?),
            "graph" => Arg::Graph(Box::new(self.deeper(Self::nested)?)),
            word if word.contains('.') => Arg::Op(self.operator(start, word)?),
            word => match DType::from_name(word).map(Arg::DType).or_else(|| crate::text::spelling(word)) {
                Some(arg) => arg,
                None => {
                    self.at.back(start);
                    return Err(self.at.expected("an argument"));
                }
            },
        })
    }

    fn small(&mut self) -> Result<u8, Error> {
        self.at.expect(b'(')?;
        let n = self.at.integer("a number up to 255")?;
        self.at.expect(b')')?;
        Ok(n)
    }
}
