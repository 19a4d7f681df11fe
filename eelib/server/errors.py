"""Errors in the form that each family of clients reads, always with a sentence."""

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


class RequestError(Exception):
    """A request that cannot be served: its status and a sentence."""

    def __init__(self, status: int, message: str, field: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, headers


class ClientGone(Exception):
    """The client has hung up; nobody reads an answer."""


_UNION_TAGS = {"float", "int", "str"}  # in the places that pydantic names
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(path: str, status: int, message: str, field: str = "") -> dict:
    """The body of an error on a route."""
    if "/v1/" not in f"{path}/":
        return {"error": message}
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {
        "detail": [{"loc": field or "body", "msg": message, "type": kind}],
        "error": {"message": message, "type": kind, "param": field or None, "code": status},
    }


def error_response(
    path: str, status: int, message: str, field: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(error_body(path, status, message, field), status, headers)


def of_request_error(request: Request, error: RequestError) -> JSONResponse:
    """Handler of RequestError."""
    return error_response(request.url.path, error.status, error.message, error.field, error.headers)


def of_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    """Handler of what the router itself says: no such route, no such method."""
    message = {
        404: f"There is no route {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
    }.get(error.status_code, str(error.detail))
    return error_response(request.url.path, error.status_code, message, headers=error.headers)


def of_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    """Handler of a body that fits no schema: one sentence on the first thing that is wrong with it."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(request.url.path, 422, "The body is not JSON.", "body")
    names = [str(name) for name in first["loc"] if name != "body"]
    field = ".".join(name for name in names if name not in _UNION_TAGS and "[" not in name)
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "missing":
        sentence = f"The field {field or 'body'} is missing."
    elif first["type"] == "value_error":
        sentence = f"{reason}."
    else:
        sentence = f"The field {field or 'body'} is not as it must be: {reason[0].lower()}{reason[1:]}."
    return error_response(request.url.path, 422, sentence, field)


def of_anything(request: Request, error: Exception) -> JSONResponse:
    """Handler of what nobody foresaw; the server's log has the rest."""
    return error_response(request.url.path, 500, f"The server failed with {type(error).__name__}.")
