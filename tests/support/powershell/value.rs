//! The PowerShell values that the scripts of hostgw use.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, rc::Rc};

/// The value of a variable.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Str(String),
    /// An array of fixed length; `+=` creates another one.
    Array(Rc<Vec<Value>>),
    /// `System.Collections.ArrayList`.
    List(Rc<RefCell<Vec<Value>>>),
    /// A hashtable.
    Table(Rc<RefCell<Table>>),
    /// An object from a cmdlet or `ConvertFrom-Json`, with its properties.
    Object(Rc<RefCell<BTreeMap<String, (String, Value)>>>),
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

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Int(i64),
    /// In lower case, reversed.
    Str(String),
}

impl Key {
    /// Converts a value to a key, if it can be one.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Str(text) => Some(Self::Str(text.to_lowercase().chars().rev().collect())),
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

    pub fn str(text: &str) -> Self {
        Self::Str(text.to_owned())
    }

    pub fn object(properties: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let entry = |(name, value): (&str, Self)| (name.to_lowercase(), (name.to_owned(), value));
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
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Self::Null => String::new(),
            Self::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Str(text) => text.clone(),
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
