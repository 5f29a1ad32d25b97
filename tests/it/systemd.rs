//! The unit and the notification socket.
