/* Functions of a Sandbar application, in C or whatever can call C. Link with libsandbar_function.
 *
 * A function in C is one source file:
 *
 *     #include "sandbar.h"
 *
 *     static void handle(const uint8_t *event, size_t len) {
 *         sandbar_answer(event, len, -1);
 *     }
 *
 *     int main(void) { return sandbar_serve(handle); }
 *
 * The process is the function's worker: what stands before sandbar_serve runs once, each call in a process of its own.
 */
#ifndef SANDBAR_H
#define SANDBAR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where an interpreter takes the memory for its allocator's arenas from, so that it lies on huge pages where that pays and forks are
 * cheap: three words, as CPython's PyObjectArenaAllocator. */
struct sandbar_arena_allocator {
    void *own;
    void *(*allocate)(void *own, size_t size);
    void (*free)(void *own, void *start, size_t size);
};
void sandbar_arenas(struct sandbar_arena_allocator *allocator);
/* For an interpreter that the supervisor has started as the template of its language's workers. Sleeps until a worker is wanted: 1, or 0 when
 * none will be any more. */
int32_t sandbar_template_next(void);
/* Forks that worker: 1 in the worker, which is one from here on, 0 in the template. */
int32_t sandbar_template_fork(void);
/* What the worker is to load: its function's name (0), the code (1), the handler (2), and the length of that. */
const uint8_t *sandbar_template_wanted(int32_t what, size_t *len);
/* Ends the template. */
_Noreturn void sandbar_template_end(void);
/* Joins the application's bus and says that the code is loaded. Ends the process if no sandbox started it. */
void sandbar_worker_ready(void);
/* Says why this process will never be a worker, and ends it. */
_Noreturn void sandbar_worker_give_up(const char *reason);
/* Sleeps until another instance is wanted, and returns its slot. */
uint32_t sandbar_worker_next_slot(void);
/* Forks an instance into a slot: 1 in the instance, 0 in the worker, -1 if there was no room for a process. */
int32_t sandbar_worker_fork(uint32_t slot);

/* Both in a loop: returns in each new instance, never in the worker. */
void sandbar_worker_next_instance(void);
/* Begins (1) or ends (0) a rehearsal: there is always an event, and an answer goes nowhere. For runtimes that go through the path of a
 * call before there is one, so that nothing is done there for the first time. */
void sandbar_instance_rehearse(int32_t begins);
/* Sleeps until there is a call: 1 with a call, 0 if it was over before it could start. */
int32_t sandbar_instance_take(void);
/* The event and its length in bytes. Valid until the instance answers. */
const uint8_t *sandbar_event(size_t *len);
/* The call's id, the same in all functions it passes through. */
uint64_t sandbar_call_id(void);
/* The application's name (no terminating 0) and its length. */
const uint8_t *sandbar_application(size_t *len);
/* The event's CoAP Content-Format, -1 for none. */
int32_t sandbar_content_format(void);
/* What was said of the request that the call began with, the same in all functions of a chain: the method's code in CoAP (GET 1, POST 2,
 * PUT 3, DELETE 4, FETCH 5, PATCH 6, iPATCH 7); what follows the function in the path, and the query, both percent-encoded as in a URI, with
 * no terminating 0; the Content-Format that the answer should have, -1 for none. */
int32_t sandbar_method(void);
const uint8_t *sandbar_path(size_t *len);
const uint8_t *sandbar_query(size_t *len);
int32_t sandbar_accept(void);
/* Nanoseconds the handler may still run. */
uint64_t sandbar_remaining_ns(void);

/* What is said of the answer, before it is given, by the function whose output is the answer: its code as class times 100 and detail, such as
 * 201 for 2.01 (0, or -1 if a function may not give that code); for how many seconds others may be given it; 1 to 8 bytes that name the
 * state it shows (0, or -1 if there are more or fewer); where to find what was made. */
int32_t sandbar_answer_code(int32_t code);
void sandbar_answer_max_age(uint32_t seconds);
int32_t sandbar_answer_etag(const uint8_t *etag, size_t len);
void sandbar_answer_location(const char *location);
/* Hands the output over: once, or sandbar_fail once. content_format is -1 for none. */
void sandbar_answer(const uint8_t *output, size_t len, int32_t content_format);
/* Hands the event over as the output. No byte moves; so too if the output of sandbar_answer lies in the event. */
void sandbar_answer_event(int32_t content_format);
/* Ends the call with an error, the text of which goes to the caller. */
void sandbar_fail(const uint8_t *diagnostic, size_t len);

/* Calls another function and waits: 0 when done, else why not. sandbar_reply has the answer, or the diagnostic. A function of the
 * application goes by its name, one of another application by its path, such as "/gallery/thumbnail".
 *   -1 no such function, -2 payload too large, -3 overloaded, -4 went round in circles, -5 deadline passed, -6 not listed in the
 *   manifest; as it ended there: 2 failed, 3 crashed, 4 deadline passed, 5 overloaded, 6 output too large, 7 went round in
 *   circles, 8 not found, 9 not allowed, 10 out of memory */
int32_t sandbar_call(const char *function, const uint8_t *payload, size_t len, int32_t content_format);
/* Sends to another function and does not wait: 0, or why it was not sent; sandbar_reply has the diagnostic. */
int32_t sandbar_send(const char *function, const uint8_t *payload, size_t len, int32_t content_format);
/* What the last sandbar_call or sandbar_send left, and its length. Valid until the next. */
const uint8_t *sandbar_reply(size_t *len);

/* Ends the instance's process. */
_Noreturn void sandbar_instance_exit(void);

/* The whole worker: never returns. */
static inline int sandbar_serve(void (*handle)(const uint8_t *event, size_t len)) {
    sandbar_worker_ready();
    while (sandbar_worker_fork(sandbar_worker_next_slot()) != 1) {
    }
    if (sandbar_instance_take()) {
        size_t len;
        const uint8_t *event = sandbar_event(&len);
        handle(event, len);
    }
    sandbar_instance_exit();
}

#ifdef __cplusplus
}
#endif

#endif
