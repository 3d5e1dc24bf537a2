cpdef str make_reservation_id(str sale_id, str user_id, str idempotency_key)
