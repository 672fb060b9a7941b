# Judges a summary (JSON) by a table of rules. Plain POSIX awk: mawk, busybox, gawk, original-awk.
#
# The JSON is cut into tokens and the fields of each object of the outer array are collected; deeper
# values are skipped. It trusts `average` to write JSON: it notices a summary that breaks off or
# holds something that is no token, but it is no validator.

function fail(why) {
    # Not every awk knows /dev/stderr, and a sandbox need not have it.
    print "alarm: " why | "cat 1>&2"
    close("cat 1>&2")
    failed = 1
    exit 1
}

function is_bound(text) {
    return text == "-" || text ~ /^-?[0-9]+(\.[0-9]+)?$/
}

function add_rule() {
    if (NF != 4 || !is_bound($3) || !is_bound($4))
        fail(FILENAME ", line " FNR ": expected name, unit, low, high")
    rules++
    rule_name[rules] = $1
    rule_unit[rules] = $2
    rule_low[rules] = $3
    rule_high[rules] = $4
}

function fits(rule, name, unit,    pattern, length_kept) {
    if (rule_unit[rule] != "*" && rule_unit[rule] != unit) return 0
    pattern = rule_name[rule]
    length_kept = length(pattern) - 1
    if (substr(pattern, length_kept + 1) == "*")
        return substr(name, 1, length_kept) == substr(pattern, 1, length_kept)
    return name == pattern
}

function alarm(name, unit, value, side, bound) {
    alarms = alarms (alarms == "" ? "" : ",") "{\"n\":" name \
        (unit == "" ? "" : ",\"u\":" unit) \
        ",\"smoothed\":" value ",\"" side "\":" bound "}"
}

function judge(    name, unit, value, rule) {
    if (!("n" in field) || !("smoothed" in field))
        fail("a sensor of the summary lacks its name or its smoothed reading")
    name = field["n"]
    unit = field["u"]
    value = field["smoothed"]
    for (rule = 1; rule <= rules; rule++)
        if (fits(rule, unquoted(name), unquoted(unit))) break
    if (rule > rules) {
        unwatched++
        return
    }
    checked++
    if (rule_low[rule] != "-" && value + 0 < rule_low[rule] + 0)
        alarm(name, unit, value, "below", rule_low[rule])
    else if (rule_high[rule] != "-" && value + 0 > rule_high[rule] + 0)
        alarm(name, unit, value, "above", rule_high[rule])
}

function unquoted(token) {
    return substr(token, 2, length(token) - 2)
}

function scalar(token) {
    if (depth != 2) return
    if (key == "") key = unquoted(token)
    else field[key] = token
}

function take(token) {
    if (token == "[" || token == "{") {
        depth++
        if (depth == 1 && token != "[") fail("the summary is not an array")
        if (depth == 2) { split("", field); key = "" }
    } else if (token == "]" || token == "}") {
        if (depth == 2) judge()
        depth--
        if (depth == 0) complete = 1
    } else if (token == ",") {
        if (depth == 2) key = ""
    } else if (token != ":") {
        scalar(token)
    }
}

# Tokens are looked for in a window of the line: to match, or to cut off, all the rest of it for each
# token takes a time that grows with the square of the line.
function cut_up(line,    place, width, window, found) {
    place = 1
    width = WINDOW
    while (place <= length(line)) {
        window = substr(line, place, width)
        if (match(window, /^[ \t\r]+/)) {
            place += RLENGTH
            continue
        }
        found = match(window, TOKEN)
        # A number may be cut within its ".5" or "e+3", and match up to there.
        if ((!found || RLENGTH > width - 3) && place + width <= length(line)) {
            width *= 2
            continue
        }
        if (!found) fail("the summary is not JSON at: " substr(window, 1, 20))
        take(substr(window, 1, RLENGTH))
        place += RLENGTH
        width = WINDOW
    }
}

BEGIN {
    WINDOW = 256
    TOKEN = "^(\"([^\"\\\\]|\\\\.)*\"|-?[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null|[][{}:,])"
}

reading == "rules" {
    if ($0 !~ /^[ \t]*(#|$)/) add_rule()
    next
}

# No JSON token spans lines, so each line is cut up by itself.
{ cut_up($0) }

END {
    if (failed) exit 1
    if (!complete) fail("the summary is empty or breaks off")
    print "{\"state\":\"" (alarms == "" ? "ok" : "alarm") "\",\"checked\":" checked + 0 \
        ",\"unwatched\":" unwatched + 0 ",\"alarms\":[" alarms "]}"
}
