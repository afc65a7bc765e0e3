//! Poolers: how one is noticed, and how statements go through it.
//!
//! A pooler in transaction mode hands a connection to the server on after each transaction. What belongs to a session
//! is then lost, or worse: met by others. So behind one, nothing is set for the session, nothing is listened to, and no
//! statement is prepared under a name, which another client's statement may have as well.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

/// What a request to cancel begins with, after its length.
const CANCEL: i32 = 80_877_102;
/// What asks for TLS, after its length.
const TLS: i32 = 80_877_103;
/// All types that statements here take.
const TYPES: [Type; 15] = [
    Type::TEXT,
    Type::INT8,
    Type::INT4,
    Type::INT2,
    Type::BOOL,
    Type::BYTEA,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::BOOL_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ_ARRAY,
    Type::INT4_ARRAY,
    Type::FLOAT8,
];

/// The process number that the other end gave when the connection was made: the server's own is that of the session, a
/// pooler's is made up. The client tells it to nobody but a server, in a request to cancel a statement: so that is
/// written, to ourselves. None where it does not come.
pub(crate) async fn process_number(client: &Client) -> Option<i32> {
    let (near, mut far) = duplex(64);
    let cancel = client.cancel_token();
    let send = cancel.cancel_query_raw(near, Open);
    let read = async {
        loop {
            let (_length, code) = (far.read_i32().await.ok()?, far.read_i32().await.ok()?);
            match code {
                TLS => far.write_all(b"S").await.ok()?,
                CANCEL => return far.read_i32().await.ok(),
                _ => return None,
            }
        }
    };
    let (sent, number) = tokio::join!(send, read);
    sent.ok().and(number)
}

/// Encryption towards ourselves: none.
struct Open;

/// A stream that stays as it is.
struct Plain(DuplexStream);

impl TlsConnect<DuplexStream> for Open {
    type Stream = Plain;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Plain, Self::Error>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        std::future::ready(Ok(Plain(stream)))
    }
}

impl TlsStream for Plain {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// Runs a statement that has no name, in one round trip. What is not prepared must say what types its values have.
pub(crate) async fn query(client: &Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
    let typed: Vec<(&(dyn ToSql + Sync), Type)> = params.iter().map(|param| (*param, type_of(*param))).collect();
    client.query_typed(sql, &typed).await
}

/// The one of the types here that a value can be written as.
fn type_of(param: &(dyn ToSql + Sync)) -> Type {
    let mut scratch = BytesMut::new();
    let fits = |ty: &&Type| {
        scratch.clear();
        param.to_sql_checked(ty, &mut scratch).is_ok()
    };
    // What is none of them is refused by the client when it is sent.
    TYPES.iter().find(fits).cloned().unwrap_or(Type::UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_its_type_also_where_there_is_none() {
        let (none, bytes): (Option<&[u8]>, Vec<&[u8]>) = (None, vec![b"x"]);
        let found: Vec<Type> = [
            &"text" as &(dyn ToSql + Sync),
            &Some("text"),
            &7_i64,
            &7_i32,
            &None::<i16>,
            &true,
            &none,
            &bytes,
            &vec!["a".to_owned()],
            &vec![Some(true)],
            &None::<Vec<i64>>,
        ]
        .into_iter()
        .map(type_of)
        .collect();
        let expected = [
            Type::TEXT,
            Type::TEXT,
            Type::INT8,
            Type::INT4,
            Type::INT2,
            Type::BOOL,
            Type::BYTEA,
            Type::BYTEA_ARRAY,
            Type::TEXT_ARRAY,
            Type::BOOL_ARRAY,
            Type::INT8_ARRAY,
        ];
        assert_eq!(found, expected);
    }
}
