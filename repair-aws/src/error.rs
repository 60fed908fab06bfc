//! Maps errors of AWS to kinds that a workflow acts on.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use repair_core::{Error, ErrorKind};

/// Codes for too many requests. Athena has two of them, S3 a third.
const THROTTLED: [&str; 7] = [
    "ThrottlingException",
    "TooManyRequestsException",
    "Throttling",
    "SlowDown",
    "RequestLimitExceeded",
    "ThrottledException",
    "ProvisionedThroughputExceededException",
];

/// Codes for expired or invalid credentials.
const CREDENTIALS: [&str; 10] = [
    "InvalidSecurity",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "InvalidToken",
];

/// An error of the SDK in our kinds. `action` is the name of the call in a policy (`s3:PutObject`), `resource` what it was made on.
pub(crate) fn of_sdk<E>(action: &str, resource: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let (kind, message) = match &error {
        SdkError::TimeoutError(_) => (ErrorKind::Timeout, format!("{action} on {resource} took too long")),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (ErrorKind::Timeout, format!("{action} on {resource} took too long")),
        SdkError::DispatchFailure(failure) if failure.is_user() || (failure.is_other() && !failure.is_io()) => {
            let said = chain(&error);
            if said.contains("credential") {
                (
                    ErrorKind::Denied,
                    format!(
                        "no AWS credentials for {action} on {resource}; log in (`aws sso login`, `aws login`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                         AWS_SECRET_ACCESS_KEY, or give the machine a role"
                    ),
                )
            } else {
                (ErrorKind::Transient, format!("{action} on {resource} failed to reach AWS"))
            }
        }
        SdkError::DispatchFailure(_) => (ErrorKind::Transient, format!("{action} on {resource} failed to reach AWS")),
        SdkError::ResponseError(_) => (ErrorKind::Transient, format!("the answer to {action} on {resource} was incomplete")),
        SdkError::ServiceError(service) => {
            let said = service.err().message().unwrap_or_default();
            let code = service.err().code().unwrap_or_else(|| code_of_status(service.raw().status().as_u16()));
            return of_code(action, resource, code, said).because(error);
        }
        _ => (ErrorKind::Internal, format!("{action} on {resource} could not be requested")),
    };
    Error::new(kind, message).because(error)
}

/// The code for a status. Answers to HEAD have no body that could name one, and proxies in front of a service answer in HTML.
fn code_of_status(status: u16) -> &'static str {
    match status {
        403 => "Forbidden",
        404 => "NotFound",
        412 => "PreconditionFailed",
        429 => "TooManyRequestsException",
        503 => "SlowDown",
        500..=599 => "InternalError",
        _ => "",
    }
}

/// An error that a service named.
pub(crate) fn of_code(action: &str, resource: &str, code: &str, said: &str) -> Error {
    let kind_and_advice = match code {
        _ if THROTTLED.contains(&code) => (ErrorKind::Throttled, String::new()),
        _ if CREDENTIALS.contains(&code) => (ErrorKind::Denied, "; the credentials are expired or invalid; renew them".to_owned()),
        "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" | "AuthorizationError" | "KMSAccessDenied" | "403" | "Forbidden" => {
            (ErrorKind::Denied, format!("; allow the action `{action}` on `{resource}` (docs/aws.md has the whole policy)"))
        }
        "NoSuchBucket" => (ErrorKind::NotFound, "; create the bucket, or correct `location` of the profile".to_owned()),
        "NoSuchKey" | "NotFound" | "NoSuchUpload" | "EntityNotFoundException" | "ResourceNotFoundException" => {
            (ErrorKind::NotFound, String::new())
        }
        "PreconditionFailed" | "ConditionalRequestConflict" | "OperationAborted" => (ErrorKind::Conflict, String::new()),
        "InternalError"
        | "InternalServerException"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "BadGateway"
        | "RequestTimeTooSkewed" => (ErrorKind::Transient, String::new()),
        "InvalidRequestException"
        | "InvalidRequest"
        | "ValidationException"
        | "InvalidArgument"
        | "InvalidParameter"
        | "ParameterValueInvalid"
        | "InvalidBucketName"
        | "MetadataException"
        | "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "InvalidRange" => (ErrorKind::Invalid, String::new()),
        _ => (ErrorKind::Internal, String::new()),
    };
    let (kind, advice) = kind_and_advice;
    let code = if code.is_empty() { "an error without a name" } else { code };
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    Error::new(kind, format!("{action} on {resource} was answered with {code}{said}{advice}"))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_throttles() {
        for code in ["TooManyRequestsException", "ThrottlingException", "SlowDown"] {
            assert_eq!(of_code("athena:StartQueryExecution", "workgroup/repair", code, "Rate exceeded").kind(), ErrorKind::Throttled);
        }
    }

    #[test]
    fn an_answer_without_a_body_is_known_by_its_status() {
        let of = |status: u16| of_code("s3:GetObject", "s3://bucket/a", code_of_status(status), "").kind();
        let kinds = [403, 404, 412, 429, 500, 502, 503].map(of);
        assert_eq!(
            kinds,
            [
                ErrorKind::Denied,
                ErrorKind::NotFound,
                ErrorKind::Conflict,
                ErrorKind::Throttled,
                ErrorKind::Transient,
                ErrorKind::Transient,
                ErrorKind::Throttled
            ]
        );
    }

    #[test]
    fn what_is_denied_names_the_action_and_the_resource() {
        let error = of_code("s3:PutObject", "s3://bucket/lake/a", "AccessDenied", "Access Denied");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.message().contains("`s3:PutObject` on `s3://bucket/lake/a`"), "{error}");
        assert_eq!(of_code("s3:GetObject", "s3://bucket/a", "ExpiredToken", "").kind(), ErrorKind::Denied);
    }
}
