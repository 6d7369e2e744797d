(* The exact expansion in past gradients (chapter 1), over any commutative ring: the first layer takes steps,
   any matrices G t in the place of gradients, and the tail P moves as it likes. *)
Set Warnings "-notation-overridden,-ambiguous-paths".
From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

(* thm-exact-expansion-matrix *)
Theorem exact_expansion (R : comRingType) k n d
    (P : nat -> 'M[R]_(k, n)) (W1 : nat -> 'M_(n, d)) (G : nat -> 'M_(k, d)) eta :
  (forall t, W1 t.+1 = W1 t - eta t *: ((P t)^T *m G t)) -> forall t,
  P t.+1 *m W1 t.+1 = P t *m W1 t - eta t *: (P t.+1 *m (P t)^T *m G t)
    - \sum_(s < t) eta s *: ((P t.+1 - P t) *m (P s)^T *m G s) + (P t.+1 - P t) *m W1 0%N.
Proof.
move=> step t.
have sum s : W1 s = W1 0%N - \sum_(i < s) eta i *: ((P i)^T *m G i).
  elim: s => [|s IH]; first by rewrite big_ord0 subr0.
  by rewrite step big_ord_recr opprD addrA -IH.
have -> : \sum_(s < t) eta s *: ((P t.+1 - P t) *m (P s)^T *m G s) = (P t.+1 - P t) *m (W1 0%N - W1 t).
  rewrite (sum t) subKr mulmx_sumr; apply: eq_bigr => s _.
  by rewrite -scalemxAr mulmxA.
have -> : P t.+1 *m W1 t.+1 = P t.+1 *m W1 t - eta t *: (P t.+1 *m (P t)^T *m G t).
  by rewrite step [LHS]mulmxBr -scalemxAr mulmxA.
rewrite mulmxBr opprB -addrA subrK addrAC; congr (_ - _).
by rewrite mulmxBl addrCA subrr addr0.
Qed.
