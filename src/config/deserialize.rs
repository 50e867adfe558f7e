//! Deserializes the raw types from a tree. Values move out of the tree without a copy, so memory is freed on the way.

use std::sync::Arc;

use serde::{
    Deserializer,
    de::{
        IntoDeserializer, Visitor,
        value::{Error, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::tree::{TreeNode, Value};

/// Invalid values deserialize as nothing, and ignored keys are skipped.
impl<'de> Deserializer<'de> for TreeNode {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null | Value::Invalid | Value::Ignored | Value::Other(_) => visitor.visit_unit(),
            Value::Flag(flag) => visitor.visit_bool(flag),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Text(text) => visitor.visit_string(text.into()),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Value::Map(mapping) => {
                let entries =
                    mapping.entries.into_iter().filter(|entry| !matches!(entry.node.value, Value::Ignored));
                let entries = entries.map(|entry| (KeyName(entry.key), entry.node));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null | Value::Invalid | Value::Ignored | Value::Other(_) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for TreeNode {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A key that serde copies only if it stores it.
struct KeyName(Arc<str>);

impl<'de> Deserializer<'de> for KeyName {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(&self.0)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for KeyName {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
