//! The PowerShell values that the scripts of hostgw use.

use std::{borrow::Cow, cell::RefCell, cmp::Ordering, collections::BTreeMap, net::IpAddr, rc::Rc};

/// The value of a variable.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Str(Rc<str>),
    /// An array of fixed length; `+=` creates another one.
    Array(Rc<Vec<Value>>),
    /// `System.Collections.ArrayList`.
    List(Rc<RefCell<Vec<Value>>>),
    /// A hashtable.
    Table(Rc<RefCell<Table>>),
    /// An object from a cmdlet or `ConvertFrom-Json`, with its properties.
    Object(Rc<RefCell<BTreeMap<Name<'static>, Value>>>),
    /// A type, such as `[Console]`.
    Type(String),
    /// An open file, by its path.
    File(Rc<str>),
    /// An `IPAddress`.
    Address(IpAddr),
    /// A .NET object of which only the type name matters.
    Native(&'static str),
    /// A script block, by its position in the script.
    Block(usize),
}

/// A hashtable. Scripts must not rely on its order, and its keys have types: 1 differs from '1'.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<Key, (Value, Value)>);

/// The name of a property, of which the case is insignificant.
#[derive(Debug, Clone)]
pub struct Name<'a>(pub Cow<'a, str>);

impl Ord for Name<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.chars().flat_map(char::to_lowercase).cmp(other.0.chars().flat_map(char::to_lowercase))
    }
}

/// The key of a hashtable. The order of texts is that of their ends, so that a script that relies on an order fails.
#[derive(Debug, Clone)]
pub enum Key {
    Int(i64),
    /// Its case is insignificant.
    Str(Rc<str>),
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            (Self::Int(_), Self::Str(_)) => Ordering::Less,
            (Self::Str(_), Self::Int(_)) => Ordering::Greater,
            (Self::Str(one), Self::Str(other)) => one
                .chars()
                .rev()
                .flat_map(char::to_lowercase)
                .cmp(other.chars().rev().flat_map(char::to_lowercase)),
        }
    }
}

/// Equality as the order defines it.
macro_rules! ordered {
    ($type:ty) => {
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl Eq for $type {}
    };
}

ordered!(Name<'_>);
ordered!(Key);

impl Key {
    /// Converts a value to a key, if it can be one.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Str(text) => Some(Self::Str(Rc::clone(text))),
            _ => None,
        }
    }
}

impl Table {
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.0.get(key).map(|(_, value)| value)
    }

    pub fn set(&mut self, name: Value, value: Value) {
        let key = Key::of(&name).expect("a key");
        self.0.insert(key, (name, value));
    }

    pub fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }

    pub fn keys(&self) -> Vec<Value> {
        self.0.values().map(|(name, _)| name.clone()).collect()
    }

    pub fn values(&self) -> Vec<Value> {
        self.0.values().map(|(_, value)| value.clone()).collect()
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.0.values().map(|(name, value)| (name, value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Value {
    pub fn array(items: Vec<Self>) -> Self {
        Self::Array(Rc::new(items))
    }

    pub fn str(text: impl Into<Rc<str>>) -> Self {
        Self::Str(text.into())
    }

    pub fn object(properties: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let entry = |(name, value)| (Name(Cow::Borrowed(name)), value);
        Self::Object(Rc::new(RefCell::new(properties.into_iter().map(entry).collect())))
    }

    /// The value as pipeline output: collections are unrolled once.
    pub fn enumerated(&self) -> Vec<Self> {
        match self {
            Self::Array(items) => items.to_vec(),
            Self::List(items) => items.borrow().clone(),
            other => vec![other.clone()],
        }
    }

    /// The value that collects the output of a command: nothing, a single item, or an array.
    pub fn collected(mut output: Vec<Self>) -> Self {
        match output.len() {
            0 => Self::Null,
            1 => output.remove(0),
            _ => Self::array(output),
        }
    }

    /// Returns whether `if` considers it true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Str(text) => !text.is_empty(),
            Self::Array(_) | Self::List(_) => match &self.enumerated()[..] {
                [] => false,
                [only] => only.is_true(),
                _ => true,
            },
            _ => true,
        }
    }

    /// The conversion by `[string]`; `None` for values whose text scripts should not rely on.
    pub fn text(&self) -> Option<Rc<str>> {
        Some(match self {
            Self::Null => "".into(),
            Self::Bool(value) => if *value { "True" } else { "False" }.into(),
            Self::Int(number) => number.to_string().into(),
            Self::Str(text) => Rc::clone(text),
            _ => return None,
        })
    }

    /// A description for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Str(_) => "string",
            Self::Array(_) => "array",
            Self::List(_) => "ArrayList",
            Self::Table(_) => "hashtable",
            Self::Object(_) => "object",
            Self::Type(_) => "type",
            Self::Native(name) => name,
            Self::File(_) => "FileStream",
            Self::Address(_) => "IPAddress",
            Self::Block(_) => "script block",
        }
    }
}

/// An error, as `catch` receives it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub message: String,
    pub category: &'static str,
    pub id: &'static str,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), category: "NotSpecified", id: "" }
    }
}
