//! One request: judged by its head, its body gathered within bounds, asked about, answered.
//!
//! A refused request's body is read to its end and thrown away where it is within the limit, so that a 404 or a 415
//! keeps the connection as a 204 does. Where it is longer, or was announced with `Expect: 100-continue` and not yet
//! sent, the answer goes out at once and the connection closes after it.
#![deny(clippy::indexing_slicing)]

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;

use super::connection::{Connection, Question, Told};
use super::route::{self, Coding, Refusal, Said};
use super::worker::Worker;
use super::{Bidder, NoticeAnswer, NoticeAsked, Refused};

static X_OPENRTB_VERSION: HeaderName = HeaderName::from_static("x-openrtb-version");
const VERSION_2_6: HeaderValue = HeaderValue::from_static("2.6");
const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");
const GET_AND_POST: HeaderValue = HeaderValue::from_static("GET, POST");
const POST: HeaderValue = HeaderValue::from_static("POST");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Most that a `Content-Length` may make us reserve ahead of the bytes.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// hyper's service of one connection.
pub(super) struct Exchanger<B: Bidder> {
    worker: Rc<Worker<B>>,
    connection: Rc<Connection>,
}

impl<B: Bidder> Exchanger<B> {
    pub(super) fn new(worker: Rc<Worker<B>>, connection: Rc<Connection>) -> Self {
        Self { worker, connection }
    }

    /// Hands a notice to the bidder; nothing where its method is none for notices.
    fn notice(&self, head: &Parts) -> Option<oneshot::Receiver<NoticeAnswer>> {
        let (kind, token) = route::notice_path(head.uri.path())?;
        let query = head.uri.query().unwrap_or("");
        let asked = NoticeAsked { kind, token, query };
        let fits = head.method == Method::GET || head.method == Method::POST;
        fits.then(|| self.worker.notice(&asked))
    }
}

impl<B: Bidder> Service<Request<Incoming>> for Exchanger<B> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering<B>;

    fn call(&self, request: Request<Incoming>) -> Answering<B> {
        let (head, body) = request.into_parts();
        let announced = body.size_hint().exact();
        let (read, fit) = self.connection.has_head(announced);
        let arrived = self.worker.arrived(read);
        let said = Said::by(&head.headers);
        let is_noticed = route::notice_path(head.uri.path()).is_some();
        let strict = fit && said.framing_is_strict(head.version, announced.is_none());
        let mut close = head.version != Version::HTTP_11;
        let mut notice = None;
        let todo = if !strict {
            // Where this request ends is in doubt, so nothing after it is read.
            close = true;
            let status = StatusCode::BAD_REQUEST;
            self.worker.refused(None, Refused::Framing);
            Todo::RefuseUnread(status)
        } else {
            let routed = route::route(
                &self.worker.exchanges,
                self.connection.peer,
                &head.method,
                head.uri.path(),
                &said,
            );
            let too_long = announced.is_some_and(|n| n > self.worker.limits.body_bytes as u64);
            match routed {
                _ if is_noticed => {
                    notice = self.notice(&head);
                    match (notice.is_some(), too_long) {
                        (_, true) => Todo::RefuseUnread(StatusCode::PAYLOAD_TOO_LARGE),
                        (true, false) => Todo::Hear,
                        (false, false) => Todo::Refuse(StatusCode::METHOD_NOT_ALLOWED),
                    }
                }
                Ok((exchange, _)) if too_long => {
                    self.worker.refused(Some(exchange), Refused::TooLarge);
                    Todo::RefuseUnread(StatusCode::PAYLOAD_TOO_LARGE)
                }
                Ok((exchange, coding)) => {
                    self.connection.serves(exchange);
                    Todo::Ask { exchange, coding }
                }
                Err(Refusal {
                    exchange,
                    status,
                    why,
                }) => {
                    self.worker.refused(exchange, why);
                    if too_long || head.headers.contains_key(EXPECT) {
                        Todo::RefuseUnread(status)
                    } else {
                        Todo::Refuse(status)
                    }
                }
            }
        };
        self.worker
            .in_flight
            .set(self.worker.in_flight.get().saturating_add(1));
        Answering {
            worker: Rc::clone(&self.worker),
            connection: Rc::clone(&self.connection),
            headers: head.headers,
            todo,
            body: Some(body),
            gathered: Gathered::Nothing,
            seen: 0,
            arrived,
            asked: false,
            notice,
            takes_get: is_noticed,
            close,
        }
    }
}

/// What is to become of a request once its body is here.
#[derive(Clone, Copy)]
enum Todo {
    Ask {
        exchange: usize,
        coding: Coding,
    },
    /// Answer as the bidder says, after throwing the body away.
    Hear,
    /// Answer so, after throwing the body away.
    Refuse(StatusCode),
    /// Answer so at once and close.
    RefuseUnread(StatusCode),
}

/// The body so far. One frame is kept as it came; only a second one makes a copy.
#[derive(Default)]
pub(super) enum Gathered {
    #[default]
    Nothing,
    One(Bytes),
    Many(Vec<u8>),
}

impl Gathered {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes,
        }
    }
}

/// The answer to one request, when its body is here.
pub(super) struct Answering<B: Bidder> {
    worker: Rc<Worker<B>>,
    connection: Rc<Connection>,
    /// The request's, until they become the answer's: one map serves both, and hyper takes it back for the next.
    headers: HeaderMap,
    todo: Todo,
    body: Option<Incoming>,
    gathered: Gathered,
    /// Bytes of the body so far, kept or thrown away.
    seen: usize,
    arrived: Instant,
    /// The question is with the connection, or was.
    asked: bool,
    /// The bidder's answer to a notice, when it comes.
    notice: Option<oneshot::Receiver<NoticeAnswer>>,
    /// Whether its path takes a GET.
    takes_get: bool,
    close: bool,
}

impl<B: Bidder> Answering<B> {
    /// Reads on to the body's end, or to where it need not be read any further.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(body) = &mut self.body {
            if matches!(self.todo, Todo::RefuseUnread(_)) && !body.is_end_stream() {
                return Poll::Ready(());
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers say nothing that we read.
                    if let Ok(bytes) = frame.into_data() {
                        self.gather(bytes);
                    }
                }
                None => self.body = None,
                Some(Err(_)) => {
                    // Cut, or chunked wrongly: hyper reads nothing more from this connection.
                    self.refuse(
                        Refused::Framing,
                        Todo::RefuseUnread(StatusCode::BAD_REQUEST),
                    );
                }
            }
        }
        Poll::Ready(())
    }

    fn gather(&mut self, bytes: Bytes) {
        self.seen = self.seen.saturating_add(bytes.len());
        let over = self.seen > self.worker.limits.body_bytes;
        match self.todo {
            Todo::Ask { .. } if over => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                self.refuse(Refused::TooLarge, Todo::RefuseUnread(status));
            }
            Todo::Ask { .. } => self.keep(bytes),
            Todo::Refuse(status) if over => self.todo = Todo::RefuseUnread(status),
            Todo::Hear if over => {
                self.todo = Todo::RefuseUnread(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Todo::Hear | Todo::Refuse(_) | Todo::RefuseUnread(_) => {}
        }
    }

    fn keep(&mut self, bytes: Bytes) {
        let more = match &self.gathered {
            Gathered::Nothing => {
                self.gathered = Gathered::One(bytes);
                return;
            }
            Gathered::One(first) => first.len().saturating_add(bytes.len()),
            Gathered::Many(_) => bytes.len(),
        };
        if !self.worker.hold(more) {
            self.refuse(Refused::Overloaded, Todo::Refuse(StatusCode::NO_CONTENT));
            return;
        }
        match &mut self.gathered {
            Gathered::One(first) => {
                let ahead = self.body.as_ref().and_then(|b| b.size_hint().exact());
                let ahead = usize::try_from(ahead.unwrap_or(0)).unwrap_or(usize::MAX);
                let mut many = self.worker.spare();
                many.reserve(more.saturating_add(ahead.min(AHEAD_BYTES_MAX)));
                many.extend_from_slice(first);
                many.extend_from_slice(&bytes);
                self.gathered = Gathered::Many(many);
            }
            Gathered::Many(many) => many.extend_from_slice(&bytes),
            Gathered::Nothing => {}
        }
    }

    fn refuse(&mut self, why: Refused, todo: Todo) {
        let exchange = match self.todo {
            Todo::Ask { exchange, .. } => Some(exchange),
            Todo::Hear | Todo::Refuse(_) | Todo::RefuseUnread(_) => None,
        };
        self.worker.refused(exchange, why);
        self.todo = todo;
        self.worker.let_go(mem::take(&mut self.gathered));
    }

    /// The answer, once the worker has come to this request.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        let (exchange, coding) = match self.todo {
            Todo::Ask { exchange, coding } => (exchange, coding),
            Todo::Hear => return self.poll_notice(cx),
            Todo::Refuse(status) | Todo::RefuseUnread(status) => {
                return Poll::Ready(Told::empty(status));
            }
        };
        if self.asked {
            return self.connection.told().map_or(Poll::Pending, Poll::Ready);
        }
        self.asked = true;
        self.connection.ask(Question {
            exchange,
            coding,
            body: mem::take(&mut self.gathered),
            arrived: self.arrived,
        });
        Poll::Pending
    }

    /// The answer to a notice, once what it did is durable.
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<Told> {
        let Some(notice) = &mut self.notice else {
            return Poll::Ready(Told::empty(StatusCode::NOT_FOUND));
        };
        let answer = ready!(Pin::new(notice).poll(cx));
        let status = match &answer {
            Ok(NoticeAnswer::Taken) => StatusCode::NO_CONTENT,
            Ok(NoticeAnswer::Unknown) => StatusCode::NOT_FOUND,
            Ok(NoticeAnswer::Leads(_)) => StatusCode::FOUND,
            // Whoever kept it would have kept it: it must come again.
            Ok(NoticeAnswer::TryAgain) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut told = Told::empty(status);
        if let Ok(NoticeAnswer::Leads(url)) = answer {
            match HeaderValue::from_str(&url) {
                Ok(url) => told.location = Some(url),
                Err(_) => told.status = StatusCode::NOT_FOUND,
            }
        }
        Poll::Ready(told)
    }

    fn respond(&mut self, told: Told) -> Response<Full<Bytes>> {
        let Told {
            status,
            content,
            location,
        } = told;
        let unread = self.body.take().is_some_and(|body| !body.is_end_stream());
        let mut headers = mem::take(&mut self.headers);
        headers.clear();
        headers.insert(X_OPENRTB_VERSION.clone(), VERSION_2_6);
        if status == StatusCode::OK {
            headers.insert(CONTENT_TYPE, APPLICATION_JSON);
        } else if status == StatusCode::METHOD_NOT_ALLOWED {
            let allow = if self.takes_get { GET_AND_POST } else { POST };
            headers.insert(ALLOW, allow);
        } else if let Some(location) = location {
            headers.insert(LOCATION, location);
        }
        if self.close || unread || self.worker.draining.get() {
            headers.insert(CONNECTION, CLOSE);
        }
        self.connection.has_answer(unread);
        let mut response = Response::new(Full::new(content));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl<B: Bidder> Future for Answering<B> {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        ready!(this.poll_body(cx));
        let told = ready!(this.poll_answer(cx));
        Poll::Ready(Ok(this.respond(told)))
    }
}

impl<B: Bidder> Drop for Answering<B> {
    fn drop(&mut self) {
        self.worker.let_go(mem::take(&mut self.gathered));
        // It ends before it was answered, and nobody needs to be asked any more.
        if let Some(question) = self.connection.question() {
            self.worker.let_go(question.body);
        }
        let in_flight = &self.worker.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
    }
}
