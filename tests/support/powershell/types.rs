//! Methods and static members of .NET types.

use std::{cell::RefCell, net::IpAddr, rc::Rc};

use super::{
    expression::thrown,
    interpreter::{Interpreter, Step},
    syntax::Node,
    value::{Failure, Key, Value},
};

impl<'t> Interpreter<'t> {
    /// Calls a method. Returns `None` if it has no result.
    pub fn invoke(&mut self, node: Node<'t>) -> Step<Option<Value>> {
        let children = node.named_children();
        let owner = self.value(children[0])?;
        let name = children[1].inner().lower(self.text);
        let mut arguments = Vec::new();
        for list in &children[2..] {
            for expressions in list.named_children() {
                for expression in expressions.named_children() {
                    arguments.push(self.value(expression)?);
                }
            }
        }
        match &owner {
            Value::Type(kind) => self.static_method(kind, name, &arguments),
            _ => self.method(&owner, name, &arguments),
        }
    }

    fn method(&mut self, owner: &Value, name: &str, arguments: &[Value]) -> Step<Option<Value>> {
        Ok(match (owner, name, arguments) {
            (Value::Table(table), "containskey", [key]) => {
                let Some(key) = Key::of(key) else { return thrown("Key cannot be null.") };
                Some(Value::Bool(table.borrow().get(&key).is_some()))
            }
            (Value::Table(table), "remove", [key]) => {
                let Some(key) = Key::of(key) else { return thrown("Key cannot be null.") };
                table.borrow_mut().remove(&key);
                None
            }
            // The index of the added item, which is output unless it is discarded.
            (Value::List(items), "add", [item]) => {
                items.borrow_mut().push(item.clone());
                Some(Value::Int(items.borrow().len() as i64 - 1))
            }
            (Value::List(items), "sort", [Value::Native("Ordinal")]) => {
                items.borrow_mut().sort_by_key(|item| item.text().expect("texts"));
                None
            }
            (Value::List(items), "contains", [Value::Str(text)]) => {
                let is_it = |item: &Value| matches!(item, Value::Str(other) if other == text);
                Some(Value::Bool(items.borrow().iter().any(is_it)))
            }
            // PowerShell only wraps exceptions of .NET; the model does not wrap any.
            (Value::Object(_), "getbaseexception", []) => Some(owner.clone()),
            (Value::List(items), "toarray", []) => Some(Value::array(items.borrow().clone())),
            (Value::Str(text), "indexof", [Value::Str(part)]) => {
                Some(Value::Int(text.find(&**part).map_or(-1, |at| at as i64)))
            }
            (Value::Str(text), "startswith", [Value::Str(start), Value::Str(rule)])
                if &**rule == "Ordinal" =>
            {
                Some(Value::Bool(text.starts_with(&**start)))
            }
            (Value::Str(text), "padleft", [Value::Int(width), Value::Str(with)]) => {
                let missing = usize::try_from(*width).unwrap().saturating_sub(text.chars().count());
                Some(Value::str(with.repeat(missing) + text))
            }
            (Value::Str(text), "padright", [Value::Int(width), Value::Str(with)]) => {
                let missing = usize::try_from(*width).unwrap().saturating_sub(text.chars().count());
                Some(Value::str(format!("{text}{}", with.repeat(missing))))
            }
            (Value::Str(text), "replace", [Value::Str(from), Value::Str(to)]) => {
                Some(Value::str(text.replace(&**from, to)))
            }
            (Value::Str(text), "split", [Value::Str(separator)]) => {
                Some(Value::array(text.split(&**separator).map(Value::str).collect()))
            }
            (Value::Native("Utf8"), "getbytes", [Value::Str(text)]) => Some(Value::Str(Rc::clone(text))),
            (Value::Native("Utf32"), "getbytes", [Value::Str(text)]) => {
                Some(bytes(text.chars().flat_map(|character| u32::from(character).to_le_bytes())))
            }
            (Value::Native("Utf16"), "getbytes", [Value::Str(text)]) => {
                Some(bytes(text.encode_utf16().flat_map(u16::to_be_bytes)))
            }
            (Value::Int(number), "tostring", [Value::Str(form)]) => Some(Value::str(match &**form {
                "x" => format!("{number:x}"),
                "x2" => format!("{number:02x}"),
                _ => panic!("not known: the form {form}"),
            })),
            (Value::Address(address), "tostring", []) => Some(Value::str(address.to_string())),
            (Value::Address(address), "getaddressbytes", []) => {
                let bytes = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                Some(Value::array(bytes.into_iter().map(|byte| Value::Int(byte.into())).collect()))
            }
            (Value::File(path), "write", [Value::Str(bytes), Value::Int(0), Value::Int(_)]) => {
                let (path, bytes) = (path.to_string(), bytes.clone());
                self.make_change(format!("write {path}"), false, |this| {
                    this.machine.unflushed.insert(path.clone());
                    this.machine.files.entry(path).or_default().push_str(&bytes);
                    Ok(())
                })?;
                None
            }
            (Value::File(path), "flush", [Value::Bool(true)]) => {
                let path = path.to_string();
                self.make_change(format!("flush {path}"), false, |this| {
                    this.machine.unflushed.remove(&path);
                    Ok(())
                })?;
                None
            }
            (Value::File(path), "dispose", []) => {
                self.machine.locked.remove(path.as_ref());
                None
            }
            (Value::Str(text), "substring", [Value::Int(start)]) => {
                Some(Value::str(text.chars().skip(usize::try_from(*start).unwrap()).collect::<String>()))
            }
            (Value::Str(text), "substring", [Value::Int(start), Value::Int(length)]) => {
                let [start, length] = [start, length].map(|number| usize::try_from(*number).unwrap());
                assert!(start + length <= text.chars().count(), "beyond the end of {text:?}");
                Some(Value::str(text.chars().skip(start).take(length).collect::<String>()))
            }
            (Value::Native("DateTime"), "tostring", [Value::Str(form)]) if &**form == "o" => {
                Some(Value::str("2026-01-31T12:00:00.0000000Z"))
            }
            (Value::Native("Principal"), "isinrole", [_]) => Some(Value::Bool(self.machine.is_administrator)),
            (Value::Native("Stderr"), "writeline", [text]) => {
                self.stderr.push_str(&format!("{}\n", text.text().expect("a text")));
                None
            }
            (Value::Null, ..) => return thrown("You cannot call a method on a null-valued expression."),
            _ => panic!("not known: .{name} of {} with {arguments:?}", owner.kind()),
        })
    }

    pub fn static_property(&self, kind: &str, name: &str) -> Option<Value> {
        Some(match (kind, name) {
            ("datetime", "utcnow") => Value::Native("DateTime"),
            ("console", "error") => Value::Native("Stderr"),
            ("stringcomparer", "ordinal") => Value::Native("Ordinal"),
            ("text.encoding", "utf8") => Value::Native("Utf8"),
            ("text.encoding", "utf32") => Value::Native("Utf32"),
            ("text.encoding", "bigendianunicode") => Value::Native("Utf16"),
            ("security.principal.windowsbuiltinrole", "administrator") => Value::Native("Administrator"),
            _ => panic!("not known: [{kind}]::{name}"),
        })
    }

    fn static_method(&mut self, kind: &str, name: &str, arguments: &[Value]) -> Step<Option<Value>> {
        let text = |at: usize| match arguments.get(at).and_then(Value::text) {
            Some(text) if !text.is_empty() => text.to_string(),
            other => panic!("[{kind}]::{name} with the path {other:?}"),
        };
        match (kind, name) {
            ("char", "convertfromutf32") => {
                let [Value::Int(code)] = arguments else { panic!("a character of {arguments:?}") };
                let character = u32::try_from(*code).ok().and_then(char::from_u32).expect("a character");
                Ok(Some(Value::str(character.to_string())))
            }
            ("convert", "tostring") => {
                let [Value::Int(number), Value::Int(2)] = arguments else { panic!("{arguments:?} as bits") };
                Ok(Some(Value::str(format!("{number:b}"))))
            }
            ("convert", "toint32") => {
                let [Value::Str(bits), Value::Int(2)] = arguments else { panic!("{arguments:?} of bits") };
                Ok(Some(Value::Int(i64::from_str_radix(bits, 2).expect("bits"))))
            }
            ("string", "isnullorempty") => {
                Ok(Some(Value::Bool(arguments[0].text().expect("a text").is_empty())))
            }
            ("security.principal.windowsidentity", "getcurrent") => Ok(Some(Value::Native("Identity"))),
            ("io.directory", "createdirectory") => {
                let path = text(0);
                self.make_change(format!("create {path}"), false, |_| Ok(()))?;
                Ok(Some(Value::Native("Directory")))
            }
            ("string", "equals") => {
                let [Some(left), Some(right), Some(rule)] =
                    [0, 1, 2].map(|at| arguments.get(at).and_then(Value::text))
                else {
                    panic!("[string]::Equals with {arguments:?}")
                };
                Ok(Some(Value::Bool(match &*rule {
                    "Ordinal" => left == right,
                    "OrdinalIgnoreCase" => left.to_uppercase() == right.to_uppercase(),
                    _ => panic!("not known: the rule {rule}"),
                })))
            }
            ("net.ipaddress", "parse") => match text(0).split('%').next().unwrap_or_default().parse() {
                Ok(address) => Ok(Some(Value::Address(address))),
                Err(_) => thrown("An invalid IP address was specified."),
            },
            ("io.directory", "exists") => Ok(Some(Value::Bool(self.machine.folders.contains(&text(0))))),
            ("io.file", "exists") => Ok(Some(Value::Bool(self.machine.files.contains_key(&text(0))))),
            ("io.file", "readalltext") => match self.machine.files.get(&text(0)) {
                Some(text) => Ok(Some(Value::str(text.as_str()))),
                None => thrown(format!("Could not find file '{}'.", text(0))),
            },
            ("io.file", "open") => {
                let (path, mode, share) = (text(0), text(1), text(3));
                if self.machine.locked.contains(&path) {
                    return thrown(format!(
                        "The process cannot access the file '{path}' because it is being used by another process."
                    ));
                }
                match mode.as_str() {
                    "OpenOrCreate" => {}
                    "Open" if self.machine.files.contains_key(&path) => {}
                    "Open" => return thrown(format!("Could not find file '{path}'.")),
                    "Create" => {
                        let path = path.clone();
                        self.make_change(format!("create {path}"), false, |this| {
                            this.machine.unflushed.insert(path.clone());
                            this.machine.files.insert(path, String::new());
                            Ok(())
                        })?;
                    }
                    _ => panic!("not known: the mode {mode}"),
                }
                if share == "None" {
                    self.machine.locked.insert(path.clone());
                }
                Ok(Some(Value::File(path.into())))
            }
            ("io.file", method) => self.file(method, &text, arguments).map(|()| None),
            _ => panic!("not known: [{kind}]::{name}"),
        }
    }

    /// Operations that change files.
    fn file(&mut self, method: &str, path: &dyn Fn(usize) -> String, arguments: &[Value]) -> Step<()> {
        let first = path(0);
        let words = format!("{method} {first}");
        let missing = |path: &str| Failure::new(format!("Could not find file '{path}'."));
        match method {
            "writealltext" | "appendalltext" => {
                let text = arguments[1].text().expect("a text");
                self.make_change(words, false, |this| {
                    this.machine.unflushed.insert(first.clone());
                    let file = this.machine.files.entry(first).or_default();
                    if method == "writealltext" {
                        file.clear();
                    }
                    file.push_str(&text);
                    Ok(())
                })
            }
            "delete" => self.make_change(words, false, |this| {
                this.machine.files.remove(&first);
                Ok(())
            }),
            "move" => {
                let to = path(1);
                self.make_change(words, false, |this| {
                    let files = &mut this.machine.files;
                    if files.contains_key(&to) {
                        return Err(Failure::new("Cannot create a file when that file already exists."));
                    }
                    let text = files.remove(&first).ok_or_else(|| missing(&first))?;
                    files.insert(to.clone(), text);
                    this.machine.renamed(&first, &to);
                    Ok(())
                })
            }
            // PowerShell converts a null backup name to an empty one, which is refused.
            "replace" => {
                let (to, backup) = (path(1), path(2));
                self.make_change(words, false, |this| {
                    let files = &mut this.machine.files;
                    let text = files.remove(&first).ok_or_else(|| missing(&first))?;
                    let old = files.insert(to.clone(), text).ok_or_else(|| missing(&to))?;
                    files.insert(backup.clone(), old);
                    this.machine.renamed(&to, &backup);
                    this.machine.renamed(&first, &to);
                    Ok(())
                })
            }
            _ => panic!("not known: [System.IO.File]::{method}"),
        }
    }

    pub fn new_object(&self, kind: &str, arguments: Vec<Value>) -> Value {
        match (kind, arguments.len()) {
            ("System.Collections.ArrayList", 0) => Value::List(Rc::new(RefCell::new(Vec::new()))),
            ("Security.Principal.WindowsPrincipal", 1) => Value::Native("Principal"),
            _ => panic!("not known: New-Object {kind}"),
        }
    }
}

fn bytes(bytes: impl Iterator<Item = u8>) -> Value {
    Value::array(bytes.map(|byte| Value::Int(byte.into())).collect())
}
