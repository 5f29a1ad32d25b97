//! `/api/v1/bans`: handing bans in, and looking at the ledger.

use std::sync::Arc;

use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::{Body as _, Incoming};

use super::{Answer, Question, Router, body, closing, not_now, plain, said, typed};
use crate::expose::bans::{BanQuery, IssueError, LONGEST_BODY, Submission, document};
use crate::expose::connection::Busy;

impl Router {
    pub(super) async fn bans(&self, request: Request<Incoming>, busy: Busy) -> Answer {
        if *request.method() == Method::POST {
            return self.hand_in(request.into_body(), busy).await;
        }
        if *request.method() != Method::GET || !request.body().is_end_stream() {
            let text = "GET without a body, or POST\n";
            let mut answer = closing(plain(StatusCode::METHOD_NOT_ALLOWED, text, busy));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            return answer;
        }
        let query = match BanQuery::read(request.uri().query()) {
            Ok(query) => query,
            Err(fault) => return plain(StatusCode::BAD_REQUEST, fault, busy),
        };
        let Ok(Ok(permit)) =
            tokio::time::timeout(self.engine_limit, Arc::clone(&self.readers).acquire_owned())
                .await
        else {
            return not_now(busy);
        };
        match self.ask(|reply| Question::Bans(query, reply)).await {
            Some(entries) => {
                let text = document(&entries, self.surface.clock.wall_offset());
                typed(StatusCode::OK, "application/json", text.into(), (busy, Some(permit)))
            }
            None => not_now(busy),
        }
    }

    async fn hand_in(&self, request: Incoming, busy: Busy) -> Answer {
        let body = match body(request, LONGEST_BODY).await {
            Ok(body) => body,
            // More of it may follow, which nobody is going to read.
            Err((status, text)) => return closing(said(status, text, busy)),
        };
        let submission = match Submission::read(&body) {
            Ok(submission) => submission,
            Err(fault) => return said(StatusCode::UNPROCESSABLE_ENTITY, fault, busy),
        };
        match self.ask(|reply| Question::Issue(submission, reply)).await {
            None => not_now(busy),
            Some(Err(fault @ IssueError::NoNode)) => {
                said(StatusCode::UNPROCESSABLE_ENTITY, fault.to_string(), busy)
            }
            Some(Ok(accepted)) => {
                let status = match accepted.stored {
                    true => StatusCode::ACCEPTED,
                    // It is in memory and may be lost: whoever handed it in has to know.
                    false => StatusCode::INSUFFICIENT_STORAGE,
                };
                typed(status, "application/json", accepted.document().into(), (busy, None))
            }
        }
    }
}
