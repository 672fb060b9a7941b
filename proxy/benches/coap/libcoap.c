/* libcoap's side of the bench: POST /test is echoed. Prints its address, serves until it is killed. Its socket has the
   same receive buffer as the door's: with the system's, it would lose most of 800 requests at once and then be
   measured with the few that are left. */
#include <coap3/coap.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void echo(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request,
                 const coap_string_t *query, coap_pdu_t *response) {
    size_t length, offset, total;
    const uint8_t *data;
    (void)resource, (void)session, (void)query;
    coap_pdu_set_code(response, COAP_RESPONSE_CODE_CHANGED);
    if (coap_get_data_large(request, &length, &data, &offset, &total))
        coap_add_data(response, length, data);
}

static void widen(void) {
    int bytes = 4 << 20, kind, fd;
    socklen_t length = sizeof kind;
    for (fd = 3; fd < 64; fd++)
        if (!getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) && kind == SOCK_DGRAM)
            setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
}

int main(void) {
    coap_context_t *context;
    coap_endpoint_t *endpoint;
    coap_resource_t *resource;
    coap_address_t address;
    struct sockaddr_in bound;
    socklen_t length = sizeof bound;
    int probe = socket(AF_INET, SOCK_DGRAM, 0);

    /* libcoap does not tell which port it was given: one that is free now. */
    memset(&bound, 0, sizeof bound);
    bound.sin_family = AF_INET;
    bound.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(probe, (struct sockaddr *)&bound, length) || getsockname(probe, (struct sockaddr *)&bound, &length))
        return 1;
    coap_startup();
    coap_set_log_level(LOG_ERR);
    coap_address_init(&address);
    address.size = sizeof bound;
    address.addr.sin = bound;
    context = coap_new_context(NULL);
    close(probe);
    endpoint = context ? coap_new_endpoint(context, &address, COAP_PROTO_UDP) : NULL;
    if (!endpoint)
        return 1;
    widen();
    resource = coap_resource_init(coap_make_str_const("test"), 0);
    coap_register_request_handler(resource, COAP_REQUEST_POST, echo);
    coap_add_resource(context, resource);
    printf("127.0.0.1:%u\n", ntohs(bound.sin_port));
    fflush(stdout);
    for (;;)
        coap_io_process(context, COAP_IO_WAIT);
}
