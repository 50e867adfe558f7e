//! How errors of the operating system read.

use std::{fmt, io};

/// Prints an error of the operating system as `No such device (ENODEV)`, and any other error with its own words.
#[derive(Debug, Clone, Copy)]
pub struct OsError<'a>(pub &'a io::Error);

impl fmt::Display for OsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let code = self.0.raw_os_error();
        let Some((code, name)) = code.and_then(|code| Some((code, errno_name(code)?))) else {
            return f.write_str(&text);
        };
        // The name replaces the number that the standard library appends.
        let words = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
        write!(f, "{words} ({name})")
    }
}

/// Returns the name of an error number, such as `ENODEV`.
#[cfg(target_os = "linux")]
#[must_use]
pub fn errno_name(code: i32) -> Option<&'static str> {
    use rustix::io::Errno;

    macro_rules! names {
        ($($errno:ident)*) => {
            [$((Errno::$errno, concat!("E", stringify!($errno)))),*]
        };
    }
    // rustix spells two of the names differently.
    let names = names! {
        PERM NOENT SRCH INTR IO NXIO NOEXEC BADF CHILD AGAIN NOMEM FAULT BUSY EXIST XDEV NODEV NOTDIR ISDIR INVAL NFILE
        MFILE NOTTY TXTBSY FBIG NOSPC SPIPE ROFS MLINK PIPE RANGE DEADLK NAMETOOLONG NOLCK NOSYS NOTEMPTY LOOP BADMSG
        OVERFLOW USERS NOTSOCK DESTADDRREQ MSGSIZE PROTOTYPE NOPROTOOPT PROTONOSUPPORT SOCKTNOSUPPORT OPNOTSUPP
        PFNOSUPPORT AFNOSUPPORT ADDRINUSE ADDRNOTAVAIL NETDOWN NETUNREACH NETRESET CONNABORTED CONNRESET NOBUFS ISCONN
        NOTCONN TIMEDOUT CONNREFUSED HOSTDOWN HOSTUNREACH ALREADY INPROGRESS STALE REMOTEIO DQUOT CANCELED
    };
    let respelled = [(Errno::TOOBIG, "E2BIG"), (Errno::ACCESS, "EACCES")];
    let mut known = names.iter().chain(&respelled);
    known.find(|(errno, _)| errno.raw_os_error() == code).map(|(_, name)| *name)
}

/// Returns `None`: the numbers of other systems have other names.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub const fn errno_name(_: i32) -> Option<&'static str> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn an_error_of_the_system_has_its_name_instead_of_its_number() {
        let text = |error: io::Error| OsError(&error).to_string();
        assert_eq!(text(Errno::ROFS.into()), "Read-only file system (EROFS)");
        assert_eq!(text(Errno::ACCESS.into()), "Permission denied (EACCES)");
        assert_eq!(text(Errno::TOOBIG.into()), "Argument list too long (E2BIG)");
        assert_eq!(text(Errno::NOTDIR.into()), "Not a directory (ENOTDIR)");
        assert_eq!(text(Errno::CONNREFUSED.into()), "Connection refused (ECONNREFUSED)");
        // An error without a number, and one that the table does not have.
        assert_eq!(text(io::Error::other("it ended")), "it ended");
        assert_eq!(text(io::Error::from(io::ErrorKind::NotFound)), "entity not found");
        assert_eq!(text(io::Error::from_raw_os_error(9999)), "Unknown error 9999 (os error 9999)");
    }
}
