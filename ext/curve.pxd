# How many people a queue is rid of when: served at rates that change, and left by some who wait.

from libc.math cimport exp, expm1, log1p

cdef enum:
    SEGMENTS_MAX = 32  # As engine/admission/room/future.py makes them.


cdef struct Curve:
    int count
    double leaving  # of those who wait, per second
    double per_second[SEGMENTS_MAX]
    double begins[SEGMENTS_MAX + 1]  # seconds from now
    double people[SEGMENTS_MAX + 1]  # who may be waiting now so that all are gone when it begins


cdef inline int learn_curve(Curve* curve, object segments, double leaving) except -1:
    """How many people are gone when: a fluid model of a queue that people leave.

    Served at a rate r and left by each at a rate l, as many as r (exp(l t) - 1) / l people are gone
    after t seconds (after W. Whitt, Fluid models for multiserver queues with abandonments, 2006). The
    rate changes from segment to segment.
    """
    cdef double at = 0, people = 0, seconds, rate
    cdef int count = 0
    for seconds, rate in segments[:SEGMENTS_MAX]:
        curve.begins[count], curve.people[count], curve.per_second[count] = at, people, rate
        people += rate * (
            seconds if leaving * (at + seconds) < 1e-9
            else exp(leaving * at) * expm1(leaving * seconds) / leaving
        )
        at += seconds
        count += 1
    curve.begins[count], curve.people[count] = at, people
    curve.count, curve.leaving = count, leaving
    return 0


cdef inline double wait_of(Curve* curve, double people) noexcept:
    """Seconds until so many are gone; below 0 if that is not foreseen."""
    cdef int low = 0, high = curve.count, middle
    cdef double needed
    if people > curve.people[curve.count]:
        return -1
    while low < high:
        middle = (low + high) // 2
        if curve.people[middle + 1] < people:
            low = middle + 1
        else:
            high = middle
    if low == curve.count:
        return -1
    needed = (people - curve.people[low]) / curve.per_second[low]
    if curve.leaving * (curve.begins[low] + needed) >= 1e-9:
        needed = log1p(
            curve.leaving * needed * exp(-curve.leaving * curve.begins[low])
        ) / curve.leaving
    return curve.begins[low] + needed
