//! A pickle machine that builds data and runs nothing.
//!
//! A pickle is a program for a stack machine whose instructions may call anything that Python can import. This machine
//! calls nothing: what a pickle would call is kept as a [`Object::Call`] with its arguments, for the reader of the format
//! (`saved.rs`) to recognise or to refuse, and a name to import is looked up in a list and refused, by name, when it is not on it.
//!
//! Everything is bounded by the length of the pickle: an instruction is at least a byte, makes at most one object, and
//! nothing recurses. Objects live in an arena and refer to each other by number, so that a pickle whose objects contain
//! themselves does no harm. Strings are borrowed. Instructions are those of protocols 2 to 5 that torch's pickler writes.

use std::collections::{BTreeMap, BTreeSet};

use etx_ir::error::{Error, ErrorKind};

/// Larger pickles are refused; a state dict takes some 200 bytes a tensor.
const MAX_PICKLE: usize = 64 << 20;

/// A value; cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    /// Something to import, by module and name: on the list, or the pickle would have been refused.
    Global(&'a str, &'a str),
    /// Number of an object in the arena.
    Object(u32),
}

/// What a value can refer to.
#[derive(Debug, PartialEq)]
pub(super) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    /// A list, or a set.
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// What a call of something, or a new object of a class, would have been.
    Call(Box<Call<'a>>),
    /// A reference to something outside of the pickle.
    Persistent(Value<'a>),
}

/// See [`Object::Call`].
#[derive(Debug, PartialEq)]
pub(super) struct Call<'a> {
    pub(super) callable: Value<'a>,
    /// A tuple.
    pub(super) args: Value<'a>,
    /// Items that were put into the result.
    pub(super) pairs: Vec<(Value<'a>, Value<'a>)>,
}

/// A pickle, read.
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    /// The value it stands for.
    pub(super) root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle that may import what `known` knows by module and name.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for what is no pickle, with the byte where reading stopped; [`ErrorKind::Unsupported`] naming all
    /// imports that are not known.
    pub(super) fn read(bytes: &'a [u8], known: &dyn Fn(&str, &str) -> bool) -> Result<Self, Error> {
        if bytes.len() > MAX_PICKLE {
            return Err(Error::new(ErrorKind::Format, format!("a pickle of {} bytes; at most {MAX_PICKLE} are accepted", bytes.len())));
        }
        let mut machine = Machine {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            known,
            unknown: BTreeSet::new(),
        };
        let root = machine.run().map_err(|what| Error::new(ErrorKind::Format, format!("byte {} of the pickle: {what}", machine.at)))?;
        if !machine.unknown.is_empty() {
            return Err(Error::many(
                ErrorKind::Unsupported,
                machine.unknown.into_iter().map(|name| format!("the pickle imports {name}")).collect(),
            ));
        }
        Ok(Self { objects: machine.objects, root })
    }

    /// The object that a value refers to.
    pub(super) fn object(&self, v: Value<'a>) -> Option<&Object<'a>> {
        match v {
            Value::Object(n) => self.objects.get(n as usize),
            _ => None,
        }
    }

    /// Elements of a tuple or list.
    pub(super) fn items(&self, v: Value<'a>) -> Option<&[Value<'a>]> {
        match self.object(v)? {
            Object::Tuple(items) | Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// Pairs of a dictionary, plain or ordered.
    pub(super) fn pairs(&self, v: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.object(v)? {
            Object::Dict(pairs) => Some(pairs),
            Object::Call(call) if call.callable == Value::Global("collections", "OrderedDict") => Some(&call.pairs),
            _ => None,
        }
    }

    /// What would have been called, by module and name, and with which arguments.
    pub(super) fn call(&self, v: Value<'a>) -> Option<((&'a str, &'a str), &[Value<'a>])> {
        match self.object(v)? {
            Object::Call(call) => match call.callable {
                Value::Global(module, name) => Some(((module, name), self.items(call.args)?)),
                _ => None,
            },
            _ => None,
        }
    }
}

struct Machine<'a, 'k> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Value<'a>>,
    known: &'k dyn Fn(&str, &str) -> bool,
    unknown: BTreeSet<String>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a, '_> {
    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(n).ok_or("a length beyond all bounds")?;
        let taken = self.bytes.get(self.at..end).ok_or("it ends in the middle of an instruction")?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or(0))
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, width: usize) -> Step<u64> {
        Ok(self.take(width)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let n = self.number(width)?;
        self.take(usize::try_from(n).map_err(|_| "a length beyond all bounds")?)
    }

    fn text(&mut self, width: usize) -> Step<Value<'a>> {
        std::str::from_utf8(self.counted(width)?).map(Value::Str).map_err(|e| format!("a string that is not UTF-8: {e}"))
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let n = rest.iter().position(|&b| b == b'\n').ok_or("it ends in the middle of a name")?;
        let line = std::str::from_utf8(self.take(n)?).map_err(|e| format!("a name that is not UTF-8: {e}"))?;
        self.at += 1;
        Ok(line)
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        if self.marks.last().is_some_and(|&m| m >= self.stack.len()) {
            return Err("an instruction takes a value that is not there".to_owned());
        }
        self.stack.pop().ok_or_else(|| "an instruction takes a value that is not there".to_owned())
    }

    fn pop_n(&mut self, n: usize) -> Step<Vec<Value<'a>>> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("a list without its start")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn push(&mut self, v: Value<'a>) {
        self.stack.push(v);
    }

    fn make(&mut self, o: Object<'a>) {
        // Fits: there are at most MAX_PICKLE objects.
        self.push(Value::Object(self.objects.len() as u32));
        self.objects.push(o);
    }

    fn top(&mut self) -> Step<&mut Object<'a>> {
        let top = match self.stack.last() {
            Some(Value::Object(n)) => self.objects.get_mut(*n as usize),
            _ => None,
        };
        top.ok_or_else(|| "something is put into what is no container".to_owned())
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        match self.top()? {
            Object::List(list) => list.extend(items),
            _ => return Err("elements are put into what is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a key without a value".to_owned());
        };
        let pairs = pairs.iter().map(|&[k, v]| (k, v));
        match self.top()? {
            Object::Dict(dict) => dict.extend(pairs),
            Object::Call(call) => call.pairs.extend(pairs),
            _ => return Err("items are put into what is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn global(&mut self, module: &'a str, name: &'a str) {
        if !(self.known)(module, name) {
            self.unknown.insert(format!("{module}.{name}"));
        }
        self.push(Value::Global(module, name));
    }

    fn put(&mut self, n: u64) -> Step<()> {
        let top = *self.stack.last().ok_or("nothing to remember")?;
        self.memo.insert(u32::try_from(n).map_err(|_| "a memo number beyond all bounds")?, top);
        Ok(())
    }

    fn get(&mut self, n: u64) -> Step<()> {
        let v = u32::try_from(n).ok().and_then(|n| self.memo.get(&n)).copied();
        self.push(v.ok_or_else(|| format!("nothing was remembered as {n}"))?);
        Ok(())
    }

    fn call(&mut self, callable: Value<'a>, args: Value<'a>) {
        self.make(Object::Call(Box::new(Call { callable, args, pairs: Vec::new() })));
    }

    /// An integer of `n` bytes, two's complement.
    fn long(&mut self, n: u64) -> Step<()> {
        let bytes = self.take(usize::try_from(n).map_err(|_| "a length beyond all bounds")?)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let (low, high) = bytes.split_at(bytes.len().min(8));
        let mut word = [fill; 8];
        word.iter_mut().zip(low).for_each(|(w, b)| *w = *b);
        let n = i64::from_le_bytes(word);
        if high.iter().any(|&b| b != fill) || (n < 0) != negative {
            return Err("an integer of more than 64 bits".to_owned());
        }
        self.push(Value::Int(n));
        Ok(())
    }

    fn run(&mut self) -> Step<Value<'a>> {
        loop {
            let op = self.byte()?;
            match op {
                0x80 => match self.byte()? {
                    2..=5 => {}
                    n => return Err(format!("protocol {n}; 2 to 5 are read")),
                },
                // FRAME: where a reader may stop to fetch more.
                0x95 => _ = self.number(8)?,
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.pop_mark()?,
                b'2' => {
                    let top = *self.stack.last().ok_or("nothing to double")?;
                    self.push(top);
                }
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Bool(true)),
                0x89 => self.push(Value::Bool(false)),
                b'J' => {
                    let n = self.number(4)? as u32;
                    self.push(Value::Int(i64::from(n as i32)));
                }
                b'K' | b'M' => {
                    let n = self.number(if op == b'K' { 1 } else { 2 })?;
                    self.push(Value::Int(n as i64));
                }
                0x8a | 0x8b => {
                    let n = self.number(if op == 0x8a { 1 } else { 4 })?;
                    self.long(n)?;
                }
                b'G' => {
                    let n = self.take(8)?.iter().fold(0, |n, &b| n << 8 | u64::from(b));
                    self.push(Value::Float(f64::from_bits(n)));
                }
                b'X' | 0x8c | 0x8d => {
                    let text = self.text(match op {
                        b'X' => 4,
                        0x8c => 1,
                        _ => 8,
                    })?;
                    self.push(text);
                }
                b'B' | b'C' | 0x8e => {
                    let bytes = self.counted(match op {
                        b'B' => 4,
                        b'C' => 1,
                        _ => 8,
                    })?;
                    self.push(Value::Bytes(bytes));
                }
                b']' | 0x8f => self.make(Object::List(Vec::new())),
                b'l' | b't' | 0x91 => {
                    let items = self.pop_mark()?;
                    self.make(if op == b't' { Object::Tuple(items) } else { Object::List(items) });
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b')' => self.make(Object::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let items = self.pop_n(usize::from(op) - 0x84)?;
                    self.make(Object::Tuple(items));
                }
                b'}' => self.make(Object::Dict(Vec::new())),
                b'd' => {
                    let items = self.pop_mark()?;
                    self.make(Object::Dict(Vec::new()));
                    self.set_items(items)?;
                }
                b's' => {
                    let pair = self.pop_n(2)?;
                    self.set_items(pair)?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name);
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Str(name), Value::Str(module)) => self.global(module, name),
                    _ => return Err("an import whose name is no string".to_owned()),
                },
                b'R' | 0x81 => {
                    let args = self.pop()?;
                    let callable = self.pop()?;
                    self.call(callable, args);
                }
                // BUILD: attributes of what was made; nothing that is read has any that matter.
                b'b' => {
                    _ = self.pop()?;
                    _ = self.top()?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.make(Object::Persistent(id));
                }
                b'q' | b'r' => {
                    let n = self.number(if op == b'q' { 1 } else { 4 })?;
                    self.put(n)?;
                }
                0x94 => self.put(self.memo.len() as u64)?,
                b'h' | b'j' => {
                    let n = self.number(if op == b'h' { 1 } else { 4 })?;
                    self.get(n)?;
                }
                _ => return Err(format!("instruction {op:#04x} is not one that torch writes")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle<'_>, Error> {
        Pickle::read(bytes, &|module, name| (module, name) == ("collections", "OrderedDict") || module == "m")
    }

    #[test]
    fn values_of_every_kind() {
        // [None, True, -2, 300, 2**40, -1, 1.5, 'é', b'ab', (), (1,), {'k': [7]}]
        let bytes = b"\x80\x02](N\x88J\xfe\xff\xff\xffM\x2c\x01\x8a\x06\0\0\0\0\0\x01\x8a\x01\xffG\x3f\xf8\0\0\0\0\0\0X\x02\0\0\0\xc3\xa9C\x02ab)K\x01\x85}X\x01\0\0\0k]K\x07ase.";
        let p = read(bytes).unwrap();
        let items = p.items(p.root).unwrap();
        assert_eq!(
            items[..9],
            [
                Value::None,
                Value::Bool(true),
                Value::Int(-2),
                Value::Int(300),
                Value::Int(1 << 40),
                Value::Int(-1),
                Value::Float(1.5),
                Value::Str("é"),
                Value::Bytes(b"ab")
            ]
        );
        assert_eq!(p.items(items[9]), Some(&[][..]));
        assert_eq!(p.items(items[10]), Some(&[Value::Int(1)][..]));
        let [(key, list)] = p.pairs(items[11]).unwrap() else { panic!() };
        assert_eq!((*key, p.items(*list)), (Value::Str("k"), Some(&[Value::Int(7)][..])));
    }

    #[test]
    fn ordered_dictionaries_are_calls_with_items() {
        let p = read(b"\x80\x02ccollections\nOrderedDict\n)R(K\x01K\x02u}K\x03K\x04sb.").unwrap();
        assert_eq!(p.pairs(p.root), Some(&[(Value::Int(1), Value::Int(2))][..]));
        assert_eq!(p.call(p.root), Some((("collections", "OrderedDict"), &[][..])));
    }

    #[test]
    fn imports_that_are_not_known_are_all_named_and_nothing_is_run() {
        let e = read(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85Rcbuiltins\neval\ncm\nfine\n.").err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert_eq!(e.findings(), ["the pickle imports builtins.eval", "the pickle imports os.system"]);
        let e = read(b"\x80\x04\x8c\x02os\x8c\x06system\x93.").err().unwrap();
        assert_eq!(e.findings(), ["the pickle imports os.system"]);
    }

    #[test]
    fn a_list_that_contains_itself_is_harmless() {
        let p = read(b"\x80\x02]q\0h\0a.").unwrap();
        assert_eq!(p.items(p.root), Some(&[p.root][..]));
    }

    #[test]
    fn damage_is_told_with_its_place() {
        for (bytes, what) in [
            (&b""[..], "byte 0 of the pickle: it ends in the middle of an instruction"),
            (b"\x80\x09.", "byte 2 of the pickle: protocol 9; 2 to 5 are read"),
            (b"\x80\x02X\xff\xff\xff\x7fab", "byte 7 of the pickle: it ends in the middle of an instruction"),
            (b"\x80\x02(0", "byte 4 of the pickle: an instruction takes a value that is not there"),
            (b"\x80\x02N(\x85", "byte 5 of the pickle: an instruction takes a value that is not there"),
            (b"\x80\x02h\x07", "byte 4 of the pickle: nothing was remembered as 7"),
            (b"\x80\x02}(Nu", "byte 6 of the pickle: a key without a value"),
            (b"\x80\x02Na", "byte 4 of the pickle: something is put into what is no container"),
            (b"\x80\x02NNa", "byte 5 of the pickle: something is put into what is no container"),
            (b"\x80\x02cos", "byte 3 of the pickle: it ends in the middle of a name"),
            (b"\x80\x02\x8a\x09\x01\0\0\0\0\0\0\0\x01", "byte 13 of the pickle: an integer of more than 64 bits"),
            (b"\x80\x02i", "byte 3 of the pickle: instruction 0x69 is not one that torch writes"),
            (b"\x80\x02t", "byte 3 of the pickle: a list without its start"),
        ] {
            assert_eq!(read(bytes).err().unwrap().to_string(), what);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Every instruction after every other, with operands at hand and without.
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for start in [&b"\x80\x02"[..], b"\x80\x02](NK\x01", b"\x80\x02}N)\x85q\0"] {
                    let mut bytes = start.to_vec();
                    bytes.extend([a, b, 0, 0, 1, b'.']);
                    _ = read(&bytes);
                }
            }
        }
    }
}
