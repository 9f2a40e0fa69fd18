//! H. Where the token may go: which URLs get the token, and which never do (cases 57 to 60).

mod layer;
