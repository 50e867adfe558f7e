//! Deserializes the raw types from a tree. Values move out of the tree without a copy, so memory is freed on the way.

use std::borrow::Cow;

use serde::{
    Deserializer,
    de::{
        Error as _, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::tree::{MapEntry, TreeNode, Value};

/// Values that the walk along the schema rejected deserialize as nothing, and ignored keys are skipped. Duplicate keys,
/// and values of a type that no key accepts, are errors unless the walk reported them.
impl<'de> Deserializer<'de> for TreeNode<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null | Value::Invalid | Value::Ignored | Value::Nodes => visitor.visit_unit(),
            Value::Other(what) => Err(Error::custom(format_args!("unexpected {what}"))),
            Value::Flag(flag) => visitor.visit_bool(flag),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Text(text) => visit_text(text, visitor),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Value::Map(mapping) if mapping.has_duplicates() => Err(Error::custom("duplicate key")),
            Value::Map(mapping) => {
                let is_read =
                    |entry: &MapEntry<'_>| !matches!(entry.node.value, Value::Ignored | Value::Nodes);
                let entries = mapping.entries.into_iter().filter(is_read);
                let entries = entries.map(|entry| (KeyName(entry.key), entry.node));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null | Value::Invalid | Value::Ignored | Value::Nodes => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for TreeNode<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, Error> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

/// A key that serde copies only if it stores it.
struct KeyName<'a>(Cow<'a, str>);

impl<'de> Deserializer<'de> for KeyName<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visit_text(self.0, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for KeyName<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
