(* Folding (chapter 14), over any commutative ring.  The places of an image lie in a group, such as int * int,
   in which offsets add; a kernel has one matrix for each of finitely many offsets; the padding is zero. *)
Set Warnings "-notation-overridden,-ambiguous-paths".
From mathcomp Require Import all_ssreflect all_algebra.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import GRing.Theory.
Local Open Scope ring_scope.

Section Fold.
Variables (R : comRingType) (place : zmodType) (image : pred place).
Variables (I : finType) (offset : I -> place) (centre : I).

Definition pad m (x : place -> 'cV[R]_m) p := if image p then x p else 0.

(* Stride 1, zero padding. *)
Definition convolution m k (K : I -> 'M[R]_(k, m)) (b : 'cV_k) (x : place -> 'cV_m) p :=
  \sum_i K i *m pad x (p + offset i) + b.

(* prop-fold: the convolution K, b and then the 1 x 1 convolution A, a; beside it the 1 x 1 convolution C, c
   and the identity. *)
Theorem fold m h (K : I -> 'M[R]_(h, m)) b (A : 'M_(m, h)) a (C : 'M_m) c (x : place -> 'cV_m) p :
  offset centre = 0 -> image p ->
  (A *m convolution K b x p + a) + (C *m x p + c) + x p
  = convolution (fun i => A *m K i + (i == centre)%:R *: (C + 1%:M)) (A *m b + a + c) x p.
Proof.
move=> centred inside; rewrite /convolution mulmxDr mulmx_sumr.
have -> : \sum_i (A *m K i + (i == centre)%:R *: (C + 1%:M)) *m pad x (p + offset i)
  = \sum_i A *m (K i *m pad x (p + offset i)) + (C *m x p + x p).
  rewrite -[X in _ = _ + (_ + X)]mul1mx -mulmxDl; under eq_bigr do rewrite mulmxDl -mulmxA.
  rewrite big_split /=; congr (_ + _); rewrite (bigD1 centre) //= big1 => [|i /negPf ->].
    by rewrite eqxx scale1r addr0 centred addr0 /pad inside.
  by rewrite scale0r mul0mx.
rewrite -!addrA; congr (_ + _); rewrite !addrA.
by rewrite [LHS]addrAC; congr (_ + _); rewrite -addrA addrC addrA.
Qed.
End Fold.

(* prop-fold, the other order: on two places of a line, the 1 x 1 convolution x + 1 and then a convolution that
   reads the right neighbour are no convolution with this padding. *)
Theorem other_order_fails (R : comRingType) (image := fun p : int => (p == 0) || (p == 1))
    (offset := fun i : 'I_3 => (i : nat)%:Z - 1) :
  exists (K : 'I_3 -> 'M[R]_1) (A : 'M_1) (a : 'cV_1), ~ exists K' b, forall x p, image p ->
    convolution image offset K 0 (fun p' => A *m x p' + a) p = convolution image offset K' b x p.
Proof.
pose K (i : 'I_3) : 'M[R]_1 := (i == ord_max)%:R%:M.
exists K, 1%:M, 1 => -[K' [b same]].
have right p : image p -> b = pad image (fun _ => 1) (p + 1).
  move/(same (fun _ => 0)); rewrite /convolution addr0 (bigD1 ord_max) //= [X in _ + X]big1 => [|i /negPf ne].
    rewrite [in RHS]big1 => [|i _]; last by rewrite /pad if_same mulmx0.
    by rewrite !add0r addr0 /K eqxx !mul1mx add0r => <-.
  by rewrite /K ne raddf0 mul0mx.
have := right 1 isT; rewrite (right 0 isT) /pad /= => /matrixP /(_ 0 0).
by rewrite !mxE => /eqP; rewrite oner_eq0.
Qed.
